"""Runs that edit an original by instructions: every method, resumed to the same bytes, and mistakes before any work."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
import trimesh

from config import Config, load
from guidance.prior import PriorError, load_prior
from scene.cameras import ViewRange, sample
from scene.gaussian_model import GaussianModel
from tests.changed import changed
from tests.tiny_diffusers import write_tiny_instruct
from tests.training.test_steering import same
from train import train
from training.batch_sizes import batch_shares
from training.memory_plan import MemoryPlan, guidance_bytes
from training.state import assemble
from training.step import backward
from utils.device import HOST


@pytest.fixture
def editing(tiny_config: Config, tmp_path: Path) -> Config:
    """Three iterations from a box."""
    trimesh.creation.box((0.9, 0.5, 0.4)).export(tmp_path / "box.obj")
    keys = {"image_w": 32, "image_h": 32, "C_batch_size": 2, "save_video": False, "save_process": False}
    return changed(
        tiny_config,
        model_key=str(write_tiny_instruct(tmp_path / "instruct")),
        init_shape=str(tmp_path / "box.obj"),
        iterations=3,
        densify_until_iter=0,
        flip_aug_ratio=0.5,
        perpneg=True,
        vis_interval=1,
        **keys,
    )


@pytest.mark.parametrize(
    "method",
    ["sctd", *(pytest.param(each, marks=pytest.mark.thorough) for each in ("sds", "ism", "cds", "gcs"))],
)
def test_a_run_resumes_to_the_same_bytes(
    method: str, editing: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    config = changed(editing, guidance_type=method, checkpoint_iterations=(2,), negative="ugly")
    whole = train(config)
    assert "box.obj, as 20000 Gaussians." in caplog.text
    assert "an instruction, has no view words, and perpneg does nothing." in caplog.text
    again = load(["--start_checkpoint", str(whole.run.checkpoints / "iteration_2.json"), "--quiet"])
    assert same(train(again), whole)
    assert not same(train(changed(config, image_guidance_scale=1.0)), whole)
    box = tmp_path / "box.obj"
    box.write_text(box.read_text() + "# edited\n")
    with pytest.raises(ValueError, match="was made with another original; --force"):
        train(again)


def test_the_original_is_seen_as_the_asset_that_it_was(editing: Config, tmp_path: Path) -> None:
    """Before its first update the run's asset is its own original, to the last bit, whatever the augmentations."""
    rng = torch.Generator().manual_seed(0)
    points, colors = torch.rand(200, 3, generator=rng) - 0.5, torch.rand(200, 3, generator=rng)
    GaussianModel.from_points(points, colors, 0).save_ply(tmp_path / "asset.ply")
    still = dict.fromkeys(("sh_deg_aug_ratio", "scale_aug_ratio", "shs_aug_ratio"), 0.0)
    changes = {"as_latent_ratio": 0.5, "geo_iter": 0, "bg_aug_ratio": 1.0, "SSAA": 2, **still}
    asset = str(tmp_path / "asset.ply")
    config = changed(editing, pretrained_model_path=asset, guidance_type="sds", **changes)
    state = assemble(config)
    # The instruction, nothing with the original, and nothing without it, of two views.
    assert batch_shares(config, state.prior, range(2), 2) == {6: 1.0}
    found = set()
    for step in range(1, 9):
        drawn = state.draws.at("cameras", step)
        cameras = sample(config.camera, ViewRange.initial(config.camera), 2, drawn)
        part = backward(state, cameras, range(2), step)
        assert part.guided.diagnostics["unet_evals_per_view"] == 3
        seen = part.seen
        assert torch.equal(seen.guide["The original"], seen.images)
        found.add((seen.mirrored, seen.geometry))
    assert {mirrored for mirrored, _ in found} == {geometry for _, geometry in found} == {True, False}


def test_the_memory_plan_counts_it_and_mistakes_are_sentences_before_any_work(
    editing: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    prior, plan = load_prior(editing, HOST), MemoryPlan(2, encode_singly=False)
    more, plain = (
        guidance_bytes(changed(editing, image_guidance_scale=scale), prior, plan) for scale in (1.5, 1.0)
    )
    assert more > plain

    def no_start(*args: object) -> None:
        raise AssertionError("a start takes minutes")

    monkeypatch.setattr("training.state.initialize", no_start)
    with pytest.raises(
        PriorError, match=r"edits an original, but the start sphere is none: --pretrained_model_path"
    ):
        assemble(changed(editing, init_shape="sphere"))
