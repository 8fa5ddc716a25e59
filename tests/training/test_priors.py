"""Two priors in a run: the second takes over where it is to, and a resumed run makes the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from config import Config, ConfigError, load
from guidance.prior import PriorError
from tests.changed import changed
from tests.guidance.prior.tiny_families import write_family
from train import train
from training.priors import change_prior
from training.state import assemble
from utils import checkpoints

LAST, FIRST = 4, 3
"""Iterations, and the first one of the second prior."""


@pytest.fixture
def two_priors(tiny_config: Config, tmp_path: Path) -> Config:
    second = write_family("StableDiffusion3Pipeline", tmp_path / "second")
    return changed(
        tiny_config,
        iterations=LAST,
        densify_until_iter=0,
        refine_model_key=str(second),
        refine_from_iter=FIRST,
        prior_image_size=32,
        embeddings=str(tmp_path / "embeddings"),
        checkpoint_iterations=(FIRST - 1, FIRST),
    )


def test_the_second_prior_takes_over(two_priors: Config) -> None:
    state = assemble(two_priors)
    before = state.prior.fingerprint
    change_prior(state, FIRST - 1)
    assert (state.prior.core, state.prior.fingerprint) == ("unet", before)
    change_prior(state, FIRST)
    assert state.prior.core == "transformer"
    assert state.guide.denoiser.prior is state.prior  # type: ignore[union-attr]


def test_a_run_that_resumes_at_either_prior_makes_the_same_bytes(two_priors: Config) -> None:
    whole = train(two_priors)
    kept = whole.run.checkpoints
    keys = {step: checkpoints.load(kept, step).facts["model_key"] for step in (FIRST - 1, FIRST)}
    assert keys[FIRST] == two_priors.guidance.refine_model_key
    assert keys[FIRST - 1] == two_priors.guidance.model_key
    for step in keys:
        again = train(load(["--start_checkpoint", str(kept / f"iteration_{step}.json"), "--quiet"]))
        for name, values in whole.gaussians.raw().items():
            assert torch.equal(again.gaussians.raw()[name], values), (step, name)


def test_a_second_prior_that_is_not_there_is_reported_before_the_run(two_priors: Config) -> None:
    with pytest.raises(PriorError, match="'nowhere!' is neither a folder"):
        assemble(changed(two_priors, refine_model_key="nowhere!"))


@pytest.mark.parametrize("flag", ["--refine_model_key toybox", "--refine_from_iter 5"])
def test_both_keys_are_needed(flag: str) -> None:
    with pytest.raises(ConfigError, match="must be given too"):
        load(flag.split())
