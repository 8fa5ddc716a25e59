"""Runs that ControlNets steer: every method, resumed to the same bytes, in parts and in sets, and mistakes before any work."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch
import trimesh

from config import Config, ConfigError, load
from guidance.prior import PriorError
from scene.cameras import ViewRange, sample
from tests.changed import changed
from tests.guidance.prior.tiny_mvdream import write_base, write_mvdream
from tests.tiny_diffusers import write_tiny_controlnet
from train import Result, train
from training.memory_plan import MemoryPlan, guidance_bytes
from training.state import Training, assemble
from training.step import backward_in_parts

KINDS = ("depth", "normal", "outline", "mask")


@pytest.fixture(scope="module")
def nets(tiny_prior: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """A ControlNet for each kind."""
    root = tmp_path_factory.mktemp("nets")
    return tuple(
        str(write_tiny_controlnet(root / kind, tiny_prior, seed=seed)) for seed, kind in enumerate(KINDS)
    )


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("mesh") / "box.obj"
    trimesh.creation.box((0.9, 0.5, 0.4)).export(path)
    return str(path)


@pytest.fixture
def steered(tiny_config: Config, nets: tuple[str, ...], mesh: str) -> Config:
    """Three iterations from a mesh, which is the guide."""
    keys = {
        "controlnet_model_key": nets,
        "controlnet_kinds": KINDS,
        "controlnet_ratio": 1.0,
        "init_shape": mesh,
    }
    keys |= {"image_w": 32, "image_h": 32, "C_batch_size": 2, "save_video": False, "save_process": False}
    return changed(
        tiny_config,
        iterations=3,
        densify_until_iter=0,
        flip_aug_ratio=0.5,
        perpneg=True,
        vis_interval=1,
        **keys,
    )


def same(one: Result, other: Result) -> bool:
    raw = other.gaussians.raw()
    return all(torch.equal(raw[name], values) for name, values in one.gaussians.raw().items())


@pytest.mark.parametrize(
    "method",
    ["sctd", *(pytest.param(each, marks=pytest.mark.thorough) for each in ("sds", "ism", "cds", "gcs"))],
)
def test_a_run_resumes_to_the_same_bytes_and_none_steers_at_scale_0(
    method: str, steered: Config, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    config = changed(
        steered, guidance_type=method, controlnet_ratio=0.6, checkpoint_iterations=(2,), negative="ugly"
    )
    whole = train(config)
    assert "ControlNets in 60% of the iterations: " in caplog.text
    kept = whole.run.checkpoints / "iteration_2.json"
    assert same(train(load(["--start_checkpoint", str(kept), "--quiet"])), whole)
    nothing = train(changed(config, controlnet_scale=(0.0,)))
    plain = train(changed(config, controlnet_model_key=None))
    assert same(nothing, plain)
    assert not same(whole, plain)


def parts_of(state: Training, config: Config) -> dict[str, torch.Tensor]:
    together = state.prior.views_per_set
    rng = state.draws.at("cameras", 1)
    cameras = sample(
        config.camera,
        ViewRange.initial(config.camera),
        config.guidance.C_batch_size,
        rng,
        views_per_set=together,
    )
    parts = backward_in_parts(state, cameras, 1)
    assert [part.views.stop for part in parts] == [*range(together * 1, together * 2 + 1, together)] or len(
        parts
    ) == 1
    for part in parts:
        assert [*part.seen.guide] == [
            f"ControlNet {i} is shown the guide's {kind}" for i, kind in enumerate(KINDS, 1)
        ]
        assert all(len(picture) == len(part.views) for picture in part.seen.guide.values())
    return state.optimizer.gradients()


@pytest.mark.parametrize("sets", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_parts_see_the_pictures_of_their_own_views(sets: bool, steered: Config, tmp_path: Path) -> None:
    """One view, or one set of views, at a time gives the same gradient as both."""
    config = steered
    if sets:
        base = write_base(tmp_path / "base")
        nets = [
            str(write_tiny_controlnet(tmp_path / kind, base, seed=seed)) for seed, kind in enumerate(KINDS)
        ]
        config = changed(
            steered,
            model_key=str(write_mvdream(base, tmp_path / "sets")),
            controlnet_model_key=tuple(nets),
            C_batch_size=8,
            flip_aug_ratio=0.0,
        )
    config = changed(config, as_latent_ratio=0.0)
    whole = parts_of(assemble(config), config)
    halves = parts_of(assemble(changed(config, vram_O=True)), config)
    plain = assemble(changed(config, controlnet_model_key=None))
    for name, gradient in whole.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(halves[name], gradient, rtol=1e-3, atol=1e-3 * scale)
    assert plain.steering is None
    assert plain.prior.fingerprint != assemble(config).prior.fingerprint


def test_the_memory_plan_counts_them(steered: Config) -> None:
    prior = assemble(steered).prior
    without = assemble(changed(steered, controlnet_model_key=None)).prior
    plan = MemoryPlan(2, encode_singly=False)
    more = guidance_bytes(steered, prior, plan) - guidance_bytes(steered, without, plan)
    # The pictures alone, of both views and of all conditions of one call.
    assert more > 3 * 2 * 4 * 3 * 32 * 32 * 4


def test_mistakes_are_sentences_before_any_work(
    steered: Config, mesh: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_start(*args: object) -> None:
        raise AssertionError("a start takes minutes")

    monkeypatch.setattr("training.state.initialize", no_start)
    with pytest.raises(PriorError, match=r"controlnet_model_key 'nowhere' is no folder here"):
        assemble(changed(steered, controlnet_model_key=("nowhere",), controlnet_kinds=("depth",)))
    points = Path(shutil.copy(mesh, tmp_path / "points.obj"))
    points.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")
    with pytest.raises(
        ValueError, match=r"points.obj' has no face with an area, but the guide .* needs a surface\."
    ):
        assemble(changed(steered, controlnet_guide=str(points)))

    def sentence(*flags: str) -> str:
        with pytest.raises(ConfigError) as error:
            load(["--text", "mug", "--controlnet_model_key", "a", "b", *flags])
        return str(error.value)

    both = ("--controlnet_kinds", "depth", "normal")
    assert "controlnet_kinds is null, but must name a picture for each of the 2 ControlNets" in sentence()
    assert "'pose', the picture of a skeleton" in sentence("--controlnet_kinds", "pose", "depth")
    assert "init_shape pointe has no shape to keep" in sentence(*both)
    assert "controlnet_scale is [1, 2, 3], but must be" in sentence(
        *both, "--controlnet_scale", "1", "2", "3"
    )
    assert "there is no file 'gone.glb'" in sentence(*both, "--controlnet_guide", "gone.glb")
    assert "must be start, or a file" in sentence(*both, "--controlnet_guide", "a.png")


def test_another_guide_is_another_run(steered: Config, mesh: str, tmp_path: Path) -> None:
    guide = Path(shutil.copy(mesh, tmp_path / "guide.obj"))
    whole = train(changed(steered, controlnet_guide=str(guide), checkpoint_iterations=(2,), iterations=2))
    guide.write_text(guide.read_text() + "# edited\n")
    again = load(["--start_checkpoint", str(whole.run.checkpoints / "iteration_2.json"), "--quiet"])
    with pytest.raises(ValueError, match="made with another guide"):
        train(again)
