"""The whole program on a tiny random prior: its files, its determinism, its errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from plyfile import PlyData

import config as configuration
from config import Config
from scene.gaussian_model import GaussianModel
from train import main, train, warn_of_unknown_words

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def tiny_prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny_diffusers import write_tiny_folder

    folder = tmp_path_factory.mktemp("prior")
    write_tiny_folder(folder)
    return folder


@pytest.fixture
def tiny_config(tiny_prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Ten iterations at 64²; runs go to a temporary folder."""
    monkeypatch.chdir(tmp_path)
    flags = (
        "--quiet --iterations 10 --init_num_pts 300 --image_w 64 --image_h 64 --vis_interval 5 --test_ratio 2"
    )
    flags += (
        " --text mug --save_video --densify_from_iter 0 --densify_until_iter 8 --densification_interval 4"
    )
    return configuration.load([*flags.split(), "--model_key", str(tiny_prior)])


def test_a_run_leaves_every_file_that_users_look_for(tiny_config: Config) -> None:
    root = train(tiny_config).run.root
    expected = ["config.yaml", "cfg_args", "cameras.json", "render_report.png", "save/asset.ply"]
    expected += [f"point_cloud/iteration_{step}/point_cloud.ply" for step in (5, 10)]
    expected += [
        f"test_six_views/{step}_iteration/view_{a:03d}.png" for step in (5, 10) for a in range(0, 360, 60)
    ]
    expected += [
        f"videos/{step}_iteration/video_{kind}_{step}.mp4" for step in (5, 10) for kind in ("rgb", "depth")
    ]
    expected += [f"train_process/iteration_{step}.png" for step in (1, 5, 10)] + [
        "process_videos/video_rgb.mp4"
    ]
    missing = [name for name in expected if not (root / name).stat().st_size]
    assert not missing
    assert list(root.glob("events.out.tfevents.*"))
    assert not list(root.rglob(".*tmp*"))


def test_config_yaml_reproduces_the_run_byte_for_byte(tiny_config: Config) -> None:
    first = train(tiny_config)
    again = train(configuration.load(["--opt", str(first.run.config)]))
    assert again.run.root != first.run.root
    assert again.run.asset.read_bytes() == first.run.asset.read_bytes()


def test_another_seed_gives_another_asset(tiny_config: Config) -> None:
    one, two = (train(tiny_config.model_copy(update={"seed": seed})) for seed in (1, 2))
    assert one.run.asset.read_bytes() != two.run.asset.read_bytes()


def test_the_asset_is_the_trained_model_in_the_layout_of_3dgs_viewers(tiny_config: Config) -> None:
    result = train(tiny_config)
    names = [p.name for p in PlyData.read(result.run.asset)["vertex"].properties]
    assert names[:9] == ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    assert names[-8:] == ["opacity", *(f"scale_{k}" for k in range(3)), *(f"rot_{k}" for k in range(4))]
    read = GaussianModel.load_ply(result.run.asset)
    assert torch.equal(read.means, result.gaussians.means.detach())


def test_training_moves_every_parameter(tiny_config: Config) -> None:
    def after(iterations: int) -> GaussianModel:
        still = {"densify_until_iter": 0, "relocate_interval": 0, "iterations": iterations}
        optimization = tiny_config.optimization.model_copy(update=still)
        return train(tiny_config.model_copy(update={"optimization": optimization})).gaussians

    early, late = after(1), after(4)
    for name, parameter in early.raw().items():
        if parameter.numel():
            assert not torch.equal(parameter, late.raw()[name]), name


@pytest.mark.parametrize("method", configuration.GUIDANCE_NAMES)
def test_every_guidance_runs_and_logs_its_diagnostics(tiny_config: Config, method: str) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    root = train(tiny_config.model_copy(update={"guidance_type": method})).run.root
    events = EventAccumulator(str(root)).Reload()
    scalars = set(events.Tags()["scalars"])
    wanted = {"loss/guidance", "loss/tv", "guidance/t", "guidance/grad_norm", "grad_norm/xyz", "lr/xyz"}
    assert wanted | {"run/gaussians", "run/iterations_per_second", "run/memory_GB"} <= scalars
    assert set(events.Tags()["images"]) == {"train/views", "test/six_views"}
    assert set(events.Tags()["histograms"]) == {"gaussians/opacity", "gaussians/scale"}


@pytest.mark.parametrize(
    "flags", [["--as_latent_ratio", "1"], ["--SSAA", "2"], ["--sh_degree", "3"], ["--bg_gray", "false"]]
)
def test_settings_that_change_the_step_run(tiny_config: Config, flags: list[str]) -> None:
    given = yaml.safe_load(configuration.dump(tiny_config))
    path = Path("given.yaml")
    path.write_text(yaml.safe_dump(given))
    result = train(configuration.load(["--opt", str(path), "--iterations", "2", *flags]))
    assert not result.gaussians.nonfinite()


def test_cameras_json_describes_the_test_views(tiny_config: Config) -> None:
    cameras = json.loads(train(tiny_config).run.cameras.read_text())
    assert [camera["img_name"] for camera in cameras] == [f"view_{a:03d}" for a in range(0, 360, 60)]
    for camera in cameras:
        # The third column is the viewing direction: from the position to the origin.
        forward, position = (
            torch.tensor(x) for x in ([row[2] for row in camera["rotation"]], camera["position"])
        )
        assert torch.allclose(forward, -position / position.norm(), atol=1e-5)


def test_a_prior_that_cannot_be_had_is_one_sentence(
    tiny_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    guidance = tiny_config.guidance.model_copy(update={"model_key": "/nowhere/at/all"})
    assert main(tiny_config.model_copy(update={"guidance": guidance})) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "/nowhere/at/all" in error
    assert "toybox" in error


def test_a_gradient_that_is_not_finite_stops_the_run_with_its_name(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import guidance.base

    original = guidance.base.surrogate_loss
    monkeypatch.setattr(guidance.base, "surrogate_loss", lambda z0, gradient: original(z0, gradient / 0))
    assert main(tiny_config) == 1
    error = capsys.readouterr().err
    assert "xyz" in error
    assert "iteration 1" in error


def test_a_start_that_is_not_available_is_told_before_the_prior_is_loaded(
    tiny_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    camera = tiny_config.camera.model_copy(update={"init_shape": "pointe"})
    assert main(tiny_config.model_copy(update={"camera": camera})) == 1
    assert "pointe" in capsys.readouterr().err


def test_words_that_toybox_has_never_seen_are_named(
    tiny_config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    guidance = tiny_config.guidance.model_copy(update={"model_key": "toybox", "text": "a red dragon"})
    warn_of_unknown_words(tiny_config.model_copy(update={"guidance": guidance}))
    assert "'dragon'" in caplog.text
    assert "'red'" not in caplog.text


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--iteration", "5"], ["iteration", "iterations"]),
        (["--guidance_type", "scdt"], ["scdt", "sctd"]),
        (["--opt", "config/bagle.yaml"], ["bagle.yaml", "bagel.yaml"]),
    ],
)
def test_a_mistake_on_the_command_line_exits_with_2_and_one_sentence(
    flags: list[str], words: list[str]
) -> None:
    done = subprocess.run([sys.executable, "train.py", *flags], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert all(word in done.stderr for word in words)
