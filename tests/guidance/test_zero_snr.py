"""Methods at the last timestep of a prior with zero terminal SNR, where z_t is noise alone: the limit of alpha_T -> 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

from guidance import solver
from guidance.contract import Gradient
from guidance.prediction import of_v
from guidance.prompts import Conditioning
from guidance.schedule import CLEAN, Schedule
from tests.draws import rngs
from tests.guidance.analytic_prior import AnalyticPrior, stable_diffusion_alphas
from tests.guidance.cases import VARIANTS, VIEWS, build, latents

LAST = 999
TIMES = {
    "sds": {"t": LAST},
    "ism": {"s": 899, "t": LAST},
    "cds": {"t_1": LAST, "t_2": 700},
    "gcs": {"e": 800, "s": 899, "t": LAST},
    "sctd": {"s_m": 800, "s": 900, "t": LAST},
}
OF_LATENTS = ("sctd", "sctd exact", "sctd released")
"""Variants whose w(t) is a factor on differences of latents, which do not vanish with alpha."""


def zero_snr(last: float) -> Schedule:
    """Stable Diffusion's levels, rescaled to end without signal but for alpha_T = `last`."""
    abar = stable_diffusion_alphas()
    betas = torch.cat([1 - abar[:1], 1 - abar[1:] / abar[:-1]])
    abar = torch.cumprod(1 - rescale_zero_terminal_snr(betas), 0)
    assert float(abar[LAST]) == 0
    abar[LAST] = last**2
    return Schedule.diffusion(abar, steps_offset=1)


class ZeroSnrPrior(AnalyticPrior):
    """The analytic prior up to alpha_T = `last`, whose network predicts v, as those of this kind do."""

    def __init__(self, last: float) -> None:
        super().__init__(spread=1.0, kind="v_prediction", schedule=zero_snr(last))


def gradient(variant: str, last: float, **changes: object) -> Gradient:
    """Gradient that a variant wants at the last timestep, for latents and noises that are the same each time."""
    prior = ZeroSnrPrior(last)
    method: Any = build(variant, prior, **changes).method
    conditioning: Conditioning = prior.conditioning(0, VIEWS, negative=True, perp_neg=True)
    times = {name: torch.full((VIEWS,), t) for name, t in TIMES[variant.split()[0]].items()}
    draws: dict[str, Any] = {"rngs": rngs(VIEWS)} if variant == "ism" else {}
    if variant == "cds released":
        draws = {"step": 0}
    exact = torch.set_grad_enabled(variant == "sctd exact")
    call: Callable[..., Gradient] = method.gradient
    with exact:
        return call(latents(VIEWS), latents(VIEWS, seed=1), conditioning, **times, **draws)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_last_timestep_is_the_limit(variant: str) -> None:
    """Each part of the gradient, the pictures and the pixel term are those of a signal of 1e-8."""
    weighting = "one" if variant in OF_LATENTS else "sigma_over_alpha"
    settings = {"weighting": weighting, **({"w_cp": 0.5} if variant == "sctd released" else {})}
    found, nearly = gradient(variant, 0.0, **settings), gradient(variant, 1e-8, **settings)
    close = {"rtol": 1e-4, "atol": 1e-4}
    for name, part in nearly.parts.items():
        assert float(part.abs().max()) > 1e-2
        torch.testing.assert_close(found.parts[name], part, **close)
    for name, prediction in nearly.predictions.items():
        torch.testing.assert_close(found.predictions[name](), prediction(), **close)
    if nearly.pixels is not None:
        assert found.pixels is not None
        torch.testing.assert_close(found.pixels.target, nearly.pixels.target, **close)


@pytest.mark.parametrize("variant", OF_LATENTS)
def test_a_weight_without_a_limit_is_that_of_the_last_timestep_with_signal(variant: str) -> None:
    found, plain = (
        gradient(variant, 0.0, weighting=weighting).parts for weighting in ("sigma_over_alpha", "one")
    )
    abar = float(zero_snr(0.0).alpha(torch.tensor(LAST - 1))) ** 2
    for name, part in plain.items():
        torch.testing.assert_close(found[name], ((1 - abar) / abar) ** 0.5 * part)


def test_v_at_the_last_timestep_is_minus_the_clean_sample() -> None:
    schedule, t = zero_snr(0.0), torch.tensor([LAST, 500])
    clean, noise = latents(2), latents(2, seed=1)
    z = solver.add_noise(clean, noise, t, schedule)
    alpha, sigma = (solver.per_view(values, z) for values in (schedule.alpha(t), schedule.sigma(t)))
    found = of_v(z, alpha * noise - sigma * clean, t, schedule)
    torch.testing.assert_close(found.eps, noise)
    torch.testing.assert_close(found.clean, clean)
    for u in (CLEAN, 300, LAST):
        back = solver.step(z, found, t, torch.full_like(t, u), schedule)
        expected = solver.add_noise(clean, noise, torch.full_like(t, u), schedule)
        torch.testing.assert_close(back, expected)
