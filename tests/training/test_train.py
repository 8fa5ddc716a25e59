"""The whole program on a tiny random prior: its files, its determinism, its errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from plyfile import PlyData

import config as configuration
from config import Config
from scene.gaussian_model import GaussianModel
from tests.changed import changed
from toybox.lab.verdict import warn_of_unknown_words
from train import Result, _load_or_exit, main, train
from training.report_picture import TILE
from utils.media import LABEL_HEIGHT
from utils.run_cost import RunCost

ROOT = Path(__file__).parents[2]


@pytest.fixture
def small(tiny_config: Config) -> Config:
    """Two views of 32², without films."""
    smaller = {"image_w": 32, "image_h": 32, "C_batch_size": 2}
    return changed(tiny_config, save_video=False, save_process=False, **smaller)


@pytest.fixture(scope="module")
def told() -> list[int]:
    """Iterations that `finished` has called back after."""
    return []


@pytest.fixture(scope="module")
def finished(tiny_settings: Config, told: list[int], tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run with all that it can leave."""
    config = changed(tiny_settings, guidance_type="sds", image_w=32, image_h=32)
    return train(config, tmp_path_factory.mktemp("elsewhere"), told.append)


def test_a_run_leaves_every_file_that_users_look_for(finished: Result) -> None:
    root = finished.run.root
    expected = ["config.yaml", "cfg_args", "cameras.json", "start.png", "render_report.png", "save/asset.ply"]
    expected += ["result.json", "report.html"]
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


def test_a_run_says_what_it_took_and_tells_every_iteration(finished: Result, told: list[int]) -> None:
    assert told == list(range(1, 11))
    assert finished.run.root.parents[1].name.startswith("elsewhere")
    cost = RunCost.read(finished.run.result)
    assert cost == finished.cost
    # Classifier-free guidance takes two.
    assert cost.evaluations == 2
    assert cost.gaussians == len(GaussianModel.load_ply(finished.run.asset))
    assert cost.seconds > 0
    assert 0 < cost.peak_memory < 1e3


def test_a_run_that_breaks_off_is_not_finished(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(step: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny_config, tmp_path, stop)
    assert list(tmp_path.rglob("config.yaml"))
    assert not list(tmp_path.rglob("result.json"))


def test_config_yaml_reproduces_the_run_byte_for_byte(finished: Result, tmp_path: Path) -> None:
    again = train(configuration.load(["--opt", str(finished.run.config)]), tmp_path)
    assert again.run.root != finished.run.root
    assert again.run.asset.read_bytes() == finished.run.asset.read_bytes()


def test_another_seed_gives_another_asset(small: Config) -> None:
    one, two = (train(changed(small, seed=seed, iterations=1)) for seed in (1, 2))
    assert one.run.asset.read_bytes() != two.run.asset.read_bytes()


def test_the_asset_is_the_trained_model_in_the_layout_of_3dgs_viewers(finished: Result) -> None:
    names = [p.name for p in PlyData.read(finished.run.asset)["vertex"].properties]
    assert names[:9] == ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    assert names[-8:] == ["opacity", *(f"scale_{k}" for k in range(3)), *(f"rot_{k}" for k in range(4))]
    read = GaussianModel.load_ply(finished.run.asset)
    assert torch.equal(read.means, finished.gaussians.means.detach())


def test_training_moves_every_parameter(small: Config) -> None:
    def after(iterations: int) -> GaussianModel:
        still = {"densify_until_iter": 0, "relocate_interval": 0, "iterations": iterations}
        return train(changed(small, **still)).gaussians

    early, late = after(1), after(3)
    for name, parameter in early.raw().items():
        if parameter.numel():
            assert not torch.equal(parameter, late.raw()[name]), name


TIMES = {"ism": "t s", "cds": "t_1 t_2", "gcs": "t s e", "sctd": "t s s_m"}
"""The times that a guidance logs, where it is not t alone."""


@pytest.mark.parametrize(
    ("method", "keys"),
    [
        *((method, {}) for method in configuration.GUIDANCE_NAMES),
        ("sctd", {"approximate": False}),
        ("sctd", {"sctd_variant": "released"}),
        ("sctd", {"sctd_variant": "released", "w_cp": 0.1}),
        ("sctd", {"t_mode": "mono", "phase_num": 1}),
        ("sctd", {"sctd_variant": "released", "t_mode": "mono", "phase_num": 1}),
        ("gcs", {"w_cp": 0.0, "w_gc": 0.0}),
        ("ism", {"denoise_guidance_scale": 3.0, "xs_eta": 0.5, "normalize_grad": False}),
    ],
)
def test_every_guidance_runs_and_logs_its_diagnostics(
    small: Config, method: str, keys: dict[str, object]
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    also = {"perpneg": True, "negative": "ugly", "flip_aug_ratio": 0.5, "as_latent_ratio": 0.5}
    result = train(changed(small, guidance_type=method, iterations=2, test_ratio=1, **also, **keys))
    assert not result.gaussians.nonfinite()
    events = EventAccumulator(str(result.run.root)).Reload()
    scalars = set(events.Tags()["scalars"])
    wanted = {"loss/guidance", "loss/tv", "guidance/grad_norm", "grad_norm/xyz", "lr/xyz", "run/gaussians"}
    wanted |= {f"guidance/{name}" for name in (*TIMES.get(method, "t").split(), "unet_evals_per_view")}
    assert wanted | {"run/iterations_per_second", "run/memory_GB"} <= scalars
    assert any(name.startswith("guidance/grad_norm_") for name in scalars)
    assert ("guidance/grad_norm_pixels" in scalars) == bool(keys.get("w_cp", method == "gcs"))
    assert set(events.Tags()["images"]) == {"train/views", "test/six_views"}
    assert set(events.Tags()["histograms"]) == {"gaussians/opacity", "gaussians/scale"}


def test_pictures_do_not_change_the_asset(small: Config) -> None:
    quick = {"guidance_type": "gcs", "flip_aug_ratio": 0.5, "iterations": 4}
    often, never = (train(changed(small, vis_interval=every, **quick)) for every in (2, 10**6))
    assert often.run.asset.read_bytes() == never.run.asset.read_bytes()
    pictures = [len(list((result.run.root / "train_process").iterdir())) for result in (often, never)]
    assert pictures == [3, 1]


def test_bright_colours_are_dimmed_and_counted(small: Config) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    keys = {"start_reset_iter": 2, "end_reset_iter": 5, "lgt_thresh": 0.0, "iterations": 6}
    result = train(changed(small, BEG=True, **keys))
    events = EventAccumulator(str(result.run.root)).Reload()
    assert [event.value for event in events.Scalars("run/times_dimmed")] == [0, 2]
    plain = train(changed(small, **keys))
    assert result.run.asset.read_bytes() != plain.run.asset.read_bytes()


def test_settings_that_change_the_step_run(small: Config) -> None:
    path = Path("given.yaml")
    path.write_text(configuration.dump(small))
    for flags in (["--as_latent_ratio", "1"], ["--SSAA", "2"], ["--sh_degree", "3"], ["--bg_gray", "false"]):
        result = train(configuration.load(["--opt", str(path), "--iterations", "2", *flags]))
        assert not result.gaussians.nonfinite(), flags


def test_cameras_json_describes_the_test_views(finished: Result) -> None:
    cameras = json.loads(finished.run.cameras.read_text())
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
    assert main(changed(tiny_config, model_key="/nowhere/at/all")) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "/nowhere/at/all" in error
    assert "toybox" in error


def test_a_start_that_cannot_be_had_is_told_before_the_prior_is_loaded(
    tiny_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("broken.glb").write_bytes(b"glTF")
    for keys, words in (
        ({"init_shape": "pointe", "pointe_model": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"init_shape": "gone.ply"}, "'gone.ply' is not there"),
        ({"init_shape": "broken.glb"}, "'broken.glb' cannot be read as glTF 2.0"),
        ({"pretrained_model_path": "gone.ply"}, "'gone.ply' is not there"),
    ):
        assert main(changed(tiny_config, model_key="/no/prior", **keys)) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert words in error


def test_a_run_continues_from_the_asset_of_another(small: Config) -> None:
    short = changed(small, iterations=1, densify_until_iter=0, init_num_pts=50)
    first = train(changed(short, sh_degree=1))
    further = changed(short, pretrained_model_path=str(first.run.asset), init_num_pts=4)
    again = train(further)
    assert again.gaussians.sh_degree == 0
    # One step of Adam changes each coordinate by the learning rate at most.
    moved = (again.gaussians.means - first.gaussians.means).abs().max()
    assert 0 < moved <= 1.01 * further.optimization.position_lr_init


def test_start_png_shows_the_shape_whose_gaussians_begin_faint(small: Config) -> None:
    root = train(changed(small, iterations=1, init_shape="box", init_num_pts=3000)).run.root
    sheet = np.asarray(Image.open(root / "start.png")).astype(int)
    # Below its title and the angle, the middle of the first of six squares is the middle of the box, and grey.
    middle = sheet[2 * LABEL_HEIGHT + 4 + TILE // 2, TILE // 2]
    assert abs(middle - 128).max() < 12
    assert sheet.shape[1] == 6 * TILE + 5 * 4


def test_words_that_toybox_has_never_seen_are_named(
    tiny_config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_unknown_words(changed(tiny_config, model_key="toybox", text="a red dragon"))
    assert "'dragon'" in caplog.text
    assert "'red'" not in caplog.text


def test_a_mistake_on_the_command_line_exits_with_2_and_one_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command runs in a process of its own, as users start it: nothing else has set up what it prints with."""
    flags = ["--iteration", "5"]
    done = subprocess.run([sys.executable, "train.py", *flags], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "iterations" in done.stderr

    for flags, words in (
        (["--iteration", "5"], ["iteration", "iterations"]),
        (["--guidance_type", "scdt"], ["scdt", "sctd"]),
        (["--opt", "config/bagle.yaml"], ["bagle.yaml", "bagel.yaml"]),
        (["--guidance_type", "gcs", "--delta_t", "5"], ["delta_t is 5", "GCS", "[11, 298]"]),
    ):
        with pytest.raises(SystemExit) as end:
            _load_or_exit(flags)
        said = capsys.readouterr().err
        assert end.value.code == 2, flags
        assert said.count("\n") == 1, flags
        assert all(word in said for word in words), said
