"""Priors of every family at their true sizes, on the meta device: parameters, arithmetic, memory, evaluations."""

from __future__ import annotations

import pytest
import torch

import guidance
from guidance import Condition
from guidance.prior.shadow import META, fused_attention, shadow
from memory import config_of
from priors import TRUE_SIZES, prior_of, row
from utils.rng import Draws

PARAMETERS = {"SDXL": 2.567, "SD 3.5 medium": 2.5, "SANA 0.6B": 0.6, "SANA 1.6B": 1.6, "Z-Image": 6.15}
"""10^9 parameters, as published."""


@pytest.mark.thorough
@pytest.mark.parametrize("name", TRUE_SIZES)
def test_true_sizes(name: str) -> None:
    prior = prior_of(TRUE_SIZES[name])
    found = row(name, prior)
    assert found["network"] == pytest.approx(PARAMETERS[name], rel=0.12)
    assert found["weights"] < found["1 view"] < found["4 views"]
    # An evaluation goes over every parameter for every token, at least.
    assert found["evaluation"] * 1e12 > 2 * found["network"] * 1e9


@pytest.mark.thorough
@pytest.mark.parametrize("name", TRUE_SIZES)
def test_evaluations_are_counted(name: str) -> None:
    """SDS takes two a view, with the texts' parts in one batch."""
    twin = shadow(prior_of(TRUE_SIZES[name]))
    config = config_of("sds", "CFG", 1, twin.image_size)

    class Blank:
        def embed(self, prompts: list[str]) -> Condition:
            return twin.blank_condition(len(prompts))

    conditioning = guidance.embed_prompts(config, Blank()).at(torch.zeros(1), torch.full((1,), 90.0))  # type: ignore[arg-type]
    images = torch.zeros(1, 3, 512, 512, device=META, requires_grad=True)
    with fused_attention():
        output = guidance.build(config, twin)(
            images, conditioning, 0, Draws(0).of_views("timesteps", 0, range(1))
        )
    assert output.diagnostics["unet_evals_per_view"] == 2
