"""A run under a prior that sees sets of views: its views, its bytes when it resumes, and numbers of views that are no sets."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

import guidance
from config import Config, load
from guidance.prior import LatentPrior
from scene.cameras import ViewRange, sample
from tests.changed import changed
from tests.guidance.prior.tiny_mvdream import write_base, write_mvdream
from train import train
from training.state import assemble
from training.step import backward_in_parts
from utils import checkpoints
from utils.ranks import Ranks


@pytest.fixture(scope="module")
def mvdream(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("mvdream")
    return str(write_mvdream(write_base(root / "base"), root / "mvdream"))


@pytest.fixture
def of_sets(tiny_config: Config, mvdream: str) -> Config:
    return changed(
        tiny_config,
        model_key=mvdream,
        C_batch_size=8,
        image_w=32,
        image_h=32,
        iterations=3,
        densify_until_iter=0,
        save_video=False,
        save_process=False,
        flip_aug_ratio=0.5,
        bg_aug_ratio=1.0,
        perpneg=True,
        jitter_pose=True,
        checkpoint_iterations=(2,),
    )


def test_a_run_that_resumes_makes_the_same_bytes(of_sets: Config, caplog: pytest.LogCaptureFixture) -> None:
    whole = train(of_sets)
    assert caplog.text.count("sees 4 views together") == 1
    assert "no view words, and perpneg and jitter_pose do nothing." in caplog.text
    assert len(list(whole.run.root.glob("train_process/*.png"))) == 1
    kept = whole.run.checkpoints / "iteration_2.json"
    again = train(load(["--start_checkpoint", str(kept), "--quiet"]))
    for name, values in whole.gaussians.raw().items():
        assert torch.equal(again.gaussians.raw()[name], values), name


@pytest.mark.parametrize("method", ["ism", "gcs", "sctd"])
def test_a_set_has_one_time_and_one_background(method: str, of_sets: Config) -> None:
    """One set at a time gives the same gradient as both, and evaluations are counted for each view."""
    found = {}
    for at_once in (8, 4):
        state = assemble(changed(of_sets, guidance_type=method, as_latent_ratio=0.0))
        # No whole sets: rounded.
        state.counts.views_at_once = at_once + 1
        rng = state.draws.at("cameras", 1)
        cameras = sample(of_sets.camera, ViewRange.initial(of_sets.camera), 8, rng, views_per_set=4)
        parts = backward_in_parts(state, cameras, 1)
        assert [len(part.views) for part in parts] == [at_once] * (8 // at_once)
        for part in parts:
            background = part.seen.out.rgb[:, :, 0, 0].unflatten(0, (-1, 4))
            assert torch.equal(background, background[:, :1].expand_as(background))
            assert len(background[:, 0].unique(dim=0)) == at_once // 4
            assert part.guided.gradient.shape == (at_once // 4, 4, 4, 16, 16)
            assert 2 <= float(part.guided.diagnostics["unet_evals_per_view"]) <= 8
        found[at_once] = state.optimizer.gradients()
    for name, gradient in found[8].items():
        torch.testing.assert_close(
            found[4][name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max())
        )


def test_the_most_frugal_plan_takes_one_set(of_sets: Config, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert assemble(changed(of_sets, vram_O=True)).counts.views_at_once == 4
    assert "vram_O: 4 views at a time, the autoencoder view by view." in caplog.text


def test_numbers_of_views_that_are_no_sets_are_one_sentence(of_sets: Config) -> None:
    with pytest.raises(
        ValueError, match=r"C_batch_size is 6, but .* sees 4 views together: --C_batch_size 8\."
    ):
        assemble(changed(of_sets, C_batch_size=6))
    with pytest.raises(ValueError, match=r"is 8, but 3 processes need as many sets of 4 views: .*12\."):
        assemble(changed(of_sets, C_batch_size=8), ranks=Ranks(0, 3))


@pytest.fixture
def mixed(of_sets: Config, tiny_prior: Path, mvdream: str) -> Config:
    """Six iterations, of which the first two and the fourth are of sets."""
    return changed(of_sets, model_key=str(tiny_prior), multiview_model_key=mvdream, iterations=6)


def test_priors_that_take_turns_are_loaded_once_and_resume_to_the_same_bytes(
    mixed: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loaded: list[str] = []
    load_prior = guidance.prior.load_prior

    def noted(config: Config, device: torch.device) -> LatentPrior:
        loaded.append(config.guidance.model_key)
        return load_prior(config, device)

    monkeypatch.setattr(guidance.prior, "load_prior", noted)
    caplog.set_level(logging.INFO)
    turns = [mixed.guided_at(step).guidance.model_key for step in range(1, 7)]
    one, several = mixed.guidance.model_key, mixed.guidance.multiview_model_key
    assert turns == [several, several, one, several, one, one]
    whole = train(mixed)
    assert loaded == [several, one]
    assert "guides 3 of the first 6 iterations, 100% of them at first and 0% at last." in caplog.text
    kept = checkpoints.load(whole.run.checkpoints, 2).facts
    assert (kept["model_key"], [*kept["waiting"]]) == (several, [one])
    again = train(load(["--start_checkpoint", str(whole.run.checkpoints / "iteration_2.json"), "--quiet"]))
    for name, values in whole.gaussians.raw().items():
        assert torch.equal(again.gaussians.raw()[name], values), name


def test_a_mixed_run_needs_a_prior_of_several_views(mixed: Config, tiny_prior: Path) -> None:
    wrong = changed(mixed, model_key="toybox", multiview_model_key=str(tiny_prior))
    with pytest.raises(ValueError, match=r"multiview_model_key is .*, but that prior sees each view alone"):
        assemble(wrong)
    with pytest.raises(ValueError, match=r"C_batch_size is 6, but .* sees 4 views together"):
        assemble(changed(mixed, C_batch_size=6))
