"""The methods in the configurations that the tests of this folder go through, and one way to build them."""

from __future__ import annotations

import torch
from torch import Tensor

import guidance
from config.schema import Config
from guidance import Guidance
from guidance.prompts import Conditioning
from tests.guidance.analytic_prior import AnalyticPrior

VARIANTS: dict[str, dict[str, object]] = {
    "sds": {"guidance_type": "sds"},
    "ism": {"guidance_type": "ism"},
    "cds": {"guidance_type": "cds"},
    "cds released": {"guidance_type": "cds", "cds_variant": "released", "guidance_scale": 100.0},
    "gcs": {"guidance_type": "gcs"},
    "sctd": {"guidance_type": "sctd"},
    "sctd released": {"guidance_type": "sctd", "sctd_variant": "released"},
    "sctd exact": {"guidance_type": "sctd", "approximate": False},
}
"""Settings of each variant by its name: `guidance_type` and keys of GuidanceParams."""

VIEWS = 4
"""Views enough for either of the analytic prior's Perp-Neg negatives, for both and for none."""

ITERATIONS = 400
TOP_LEVEL = ("guidance_type", "phase_num", "num_ddim_timesteps")
OPTIMIZATION = ("iterations", "warmup_iter")


def config_of(variant: str, **changes: object) -> Config:
    """The configuration of a variant with some settings changed, wherever in the configuration they are."""
    settings = {
        "iterations": ITERATIONS,
        "warmup_iter": 150,
        "C_batch_size": VIEWS,
        **VARIANTS[variant],
        **changes,
    }
    top = {name: settings.pop(name) for name in TOP_LEVEL if name in settings}
    optimization = {name: settings.pop(name) for name in OPTIMIZATION}
    return Config.model_validate({**top, "guidance": settings, "optimization": optimization})


def build(variant: str, prior: AnalyticPrior, **changes: object) -> Guidance:
    return guidance.build(config_of(variant, **changes), prior)


def conditionings(prior: AnalyticPrior, count: int) -> dict[str, Conditioning]:
    """Conditionings with and without a negative prompt and Perp-Neg, by name."""
    return {
        f"{'negative' if negative else 'no negative'}, {'Perp-Neg' if perp_neg else 'plain'}": prior.conditioning(
            0, count, negative=negative, perp_neg=perp_neg
        )
        for negative in (False, True)
        for perp_neg in (False, True)
    }


CONDITIONINGS = tuple(conditionings(AnalyticPrior(), 1))


def latents(count: int, seed: int = 0) -> Tensor:
    """Latents [count, 4, 4, 4] float64."""
    return torch.randn(count, 4, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
