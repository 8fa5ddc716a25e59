"""SCTD and SDS against a literal second reading of their formulas, and what they cost."""

from __future__ import annotations

import math

import pytest
import torch

from config.guidance_params import GuidanceParams
from config.schema import Config
from guidance import SCTD, SDS, build
from guidance.base import Prior
from tests.guidance.analytic_prior import AnalyticPrior

OMEGA = 7.5


def make(prior: Prior, **changes: object) -> SCTD:
    params = GuidanceParams(guidance_scale=OMEGA, **changes)  # type: ignore[arg-type]
    return SCTD(prior, params, phase_num=5, num_ddim_timesteps=50, warmup_iter=1500)


def literal_gradient(
    prior: AnalyticPrior, z0: torch.Tensor, noise: torch.Tensor, times: tuple[int, int, int], negative: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Algorithm 1, lines 6 to 10, for one view [1, 4, 4, 4] float64; Phi and G by Eq. 5 as it is printed."""
    s_m, s, t = times
    abar = prior.alphas_cumprod.tolist()
    prompts = prior.conditioning(0, 1, negative=negative)
    empty, y, n = prompts.unconditional, prompts.positive, prompts.negative

    def alpha(time: int) -> float:
        return math.sqrt(abar[time])

    def sigma_over_alpha(time: int) -> float:
        return math.sqrt(1 - abar[time]) / alpha(time)

    def g(z: torch.Tensor, start: int, end: int, condition: torch.Tensor) -> torch.Tensor:
        integral = sigma_over_alpha(start) - sigma_over_alpha(end)  # of exp(-lambda) from start to end
        eps = prior.eps(z, torch.tensor([start]), condition)
        return alpha(end) / alpha(start) * z - alpha(end) * eps * integral

    z_sm = alpha(s_m) * (z0 + sigma_over_alpha(s_m) * noise)
    z_t = g(g(z_sm, s_m, s, empty), s, t, empty) if t > 150 and s > s_m else g(z_sm, s_m, t, empty)
    toward = z_sm - g(g(z_t, t, s, y), s, s_m, empty)
    origin = g(z_t, t, s_m, n) if negative else z_sm
    return toward, (OMEGA + 1) ** 2 * (origin - g(z_t, t, s_m, y))


@pytest.mark.parametrize("negative", [False, True])
def test_gradient_is_algorithm_1_view_by_view(negative: bool) -> None:
    prior = AnalyticPrior()
    # Two steps, one step (t at the threshold's side and next to s_m), and the first segment.
    times = [(200, 260, 340), (0, 40, 140), (400, 400, 420), (0, 100, 160), (800, 900, 980)]
    rng = torch.Generator().manual_seed(0)
    z0 = torch.randn(len(times), 4, 4, 4, generator=rng).double()
    noise = torch.randn(4, 4, 4, generator=rng).double()
    s_m, s, t = torch.tensor(times).unbind(1)
    conditioning = prior.conditioning(0, len(times), negative=negative)
    toward, across, _ = make(prior).gradient(z0, noise, conditioning, s_m, s, t)
    for view, view_times in enumerate(times):
        expected = literal_gradient(prior, z0[view : view + 1], noise, view_times, negative)
        torch.testing.assert_close(toward[view : view + 1], expected[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(across[view : view + 1], expected[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("times", "negative", "evaluations"),
    [
        ((200, 260, 340), False, 4),
        ((200, 260, 340), True, 5),
        ((0, 40, 140), False, 3),
        ((0, 40, 140), True, 4),
    ],
)
def test_network_evaluations(times: tuple[int, int, int], negative: bool, evaluations: int) -> None:
    prior = AnalyticPrior()
    s_m, s, t = torch.tensor([times] * 3).unbind(1)
    z0 = torch.randn(3, 4, 4, 4)
    *_, counted = make(prior).gradient(z0, z0, prior.conditioning(0, 3, negative=negative), s_m, s, t)
    assert counted == evaluations
    assert prior.evaluations == 3 * evaluations
    assert len(prior.calls) == (4 if t[0] > 150 else 3)


def test_reported_evaluations_are_those_made() -> None:
    prior = AnalyticPrior()
    guidance, rng = make(prior), torch.Generator().manual_seed(0)
    for step in range(0, 2000, 100):
        prior.evaluations = 0
        output = guidance(torch.randn(4, 4, 4, 4), prior.conditioning(1, 4), step, rng)
        assert output.diagnostics["unet_evals_per_view"] == prior.evaluations / 4


@pytest.mark.parametrize("guidance_type", ["sds", "sctd"])
def test_same_seed_same_gradient(guidance_type: str) -> None:
    config = Config(guidance_type=guidance_type)
    gradients = []
    for seed in (0, 0, 1):
        prior = AnalyticPrior()
        images = torch.ones(4, 4, 4, 4, requires_grad=True)
        rng = torch.Generator().manual_seed(seed)
        build(config, prior)(images, prior.conditioning(0, 4), 3, rng).loss.backward()
        gradients.append(images.grad)
    assert torch.equal(gradients[0], gradients[1])
    assert not torch.equal(gradients[0], gradients[2])


def noises(prior: AnalyticPrior, **changes: object) -> torch.Tensor:
    """The noise of two iterations of two views [2, 2, 4, 4, 4]."""
    guidance, rng = make(prior, **changes), torch.Generator().manual_seed(0)
    z0 = torch.zeros(2, 4, 4, 4)
    return torch.stack([torch.broadcast_to(guidance._noise(z0, rng), z0.shape) for _ in range(2)])


def test_noise_is_fixed_for_a_run_unless_told_otherwise() -> None:
    prior = AnalyticPrior()
    fixed = noises(prior)
    assert torch.equal(fixed, fixed[:1, :1].expand_as(fixed))
    assert torch.equal(fixed, noises(prior))
    assert not torch.equal(fixed, noises(prior, noise_seed=1))
    fresh = noises(prior, fix_noise=False).flatten(0, 1)
    assert len(torch.unique(fresh.flatten(1), dim=0)) == 4


@pytest.mark.parametrize("guidance_type", ["sds", "sctd"])
def test_nothing_to_do_at_a_lone_mode(guidance_type: str) -> None:
    """At data that is one point, prompt, no prompt and noise agree, so the gradient vanishes."""
    prior = AnalyticPrior(spread=0.0)
    prior.modes = prior.modes[:1].expand(4, -1)
    images = prior.modes.reshape(4, 4, 4, 4).double().requires_grad_()
    rng = torch.Generator().manual_seed(0)
    build(Config(guidance_type=guidance_type), prior)(
        images, prior.conditioning(0, 4), 0, rng
    ).loss.backward()
    assert float(images.grad.abs().max()) < 1e-4


def test_sds_formula() -> None:
    prior = AnalyticPrior()
    params = GuidanceParams(guidance_scale=OMEGA, weighting="sigma_squared", lambda_guidance=0.5)
    images = torch.randn(3, 4, 4, 4).requires_grad_()
    conditioning = prior.conditioning(1, 3, negative=True)
    SDS(prior, params, 1500)(images, conditioning, 0, torch.Generator().manual_seed(7)).loss.backward()
    rng = torch.Generator().manual_seed(7)
    t = torch.randint(20, 981, (3,), generator=rng)
    noise = torch.randn(3, 4, 4, 4, generator=rng)
    abar = prior.alphas_cumprod[t].float().reshape(3, 1, 1, 1)
    z_t = abar.sqrt() * images.detach() + (1 - abar).sqrt() * noise
    eps_y, eps_n = (prior.eps(z_t, t, c) for c in (conditioning.positive, conditioning.negative))
    expected = 0.5 * (1 - abar) * (OMEGA * eps_y + (1 - OMEGA) * eps_n - noise)
    torch.testing.assert_close(images.grad, expected, rtol=1e-4, atol=1e-4)


def test_an_unknown_guidance_is_named() -> None:
    config = Config().model_copy(update={"guidance_type": "ism"})
    with pytest.raises(ValueError, match="guidance_type 'ism' is not available; choose one of sctd, sds"):
        build(config, AnalyticPrior())
