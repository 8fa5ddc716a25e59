"""RecDreamer's re-weighting: its gradient beside autograd, and what it does to a prior that prefers a pose."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from guidance import METHODS, Condition, Denoiser, Guidance, Imagined
from guidance.contract import Gradient
from guidance.poses import INTERVALS, LEAST, RATE, PoseClassifier, PoseRectifier, packed
from guidance.prompts import Conditioning
from guidance.schedule import weight
from guidance.sds import SDS
from tests.draws import rngs
from tests.guidance.analytic_prior import AnalyticPrior, PixelPrior
from tests.guidance.cases import VARIANTS, VIEWS, config_of, latents

UNEVEN = torch.tensor([0.7, 0.3], dtype=torch.float64)


class Classes(PoseClassifier):
    """The posterior of an analytic prior's classes, given the images' latents."""

    def __init__(self, prior: AnalyticPrior) -> None:
        super().__init__(("front", "back"), (0.5, 0.5))
        self.prior = prior
        self.double()

    def forward(self, images: Tensor) -> Tensor:
        z = self.prior.encode(images)
        return torch.stack([self.prior.posterior(z, each) for each in (0, 1)], dim=-1)


def rectifier_of(prior: AnalyticPrior, strength: float = 1.0, weighting: str = "one") -> PoseRectifier:
    return PoseRectifier(Classes(prior), strength, weighting).double()


def weighed(rectifier: PoseRectifier, prior: AnalyticPrior, z: Tensor, t: Tensor, size: float) -> Tensor:
    """The part of the poses beside a method's gradient of some size."""
    gradient = Gradient({"a": torch.full_like(z, size)}, {"t": t}, imagined=Imagined(lambda: z, t))
    return rectifier(gradient, prior)[0].parts["pose"]


@pytest.mark.parametrize("weighting", ["one", "sigma_squared"])
def test_the_gradient_is_autograds_of_the_stated_term(weighting: str) -> None:
    prior, z, t = PixelPrior(), 0.3 * latents(VIEWS), torch.tensor([20, 150, 450, 900])
    rectifier, at = rectifier_of(prior, weighting=weighting), t // 100
    assert float(weighed(rectifier, prior, z, t, 1e9).abs().max()) == 0, "even poses need no gradient"
    rectifier.marginal[at[1:]] = UNEVEN
    found = weighed(rectifier, prior, z, t, 1e9)
    leaf = z.clone().requires_grad_()
    seen = torch.stack([prior.posterior(leaf, each) for each in (0, 1)], dim=-1)
    schedule = prior.schedule
    factor = weight(weighting, t, schedule) * schedule.sigma(t) / schedule.alpha(t)
    log_r = torch.logsumexp(torch.log(seen) + torch.log(0.5 / UNEVEN), dim=-1)
    [expected] = torch.autograd.grad(-(64 * factor * log_r).sum(), leaf)
    expected[0] = 0
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert bool((found[1:].flatten(1).norm(dim=1) > 0).all())
    # Never longer than the method's, times the strength.
    rectifier.strength = 0.5
    short = weighed(rectifier, prior, z, t, 1e-6)
    torch.testing.assert_close(short[1:].flatten(1).norm(dim=1), torch.full((3,), 0.5 * 8e-6).double())


def test_averages_are_of_each_view_in_turn_at_its_times_and_leave_out_what_is_not_finite() -> None:
    prior = AnalyticPrior()
    rectifier = rectifier_of(prior)
    rows = [[1.0, 0.0, 3.0], [1.0, 0.0, 3.0], [float("nan"), 0.5, 3.0], [0.0, 1.0, 7.0]]
    rectifier.add(torch.tensor(rows, dtype=torch.float64))
    kept = 0.5 * (1 - RATE) ** 2
    expected = torch.full((INTERVALS, 2), 0.5, dtype=torch.float64)
    expected[3] = torch.tensor([1 - kept, kept])
    expected[7] = torch.tensor([0.5 * (1 - RATE), 1 - 0.5 * (1 - RATE)])
    torch.testing.assert_close(rectifier.marginal, expected)
    assert pytest.approx(0.1) == (1 - RATE) ** 100
    rectifier.marginal[0] = torch.tensor([1.0, 0.0])
    assert bool(rectifier.marginal[0].min() < LEAST)
    assert bool(weighed(rectifier, prior, latents(1), torch.tensor([20]), 1.0).isfinite().all())


def test_poses_of_a_prior_that_prefers_one_become_even() -> None:
    """Under SDS most views come to show the pose that 85% of the prior's views have; re-weighted, about half of them do."""
    shares, views, steps = {}, 16, 80
    for strength in (0.0, 1.0):
        prior = AnalyticPrior(spread=1.0)
        prior.modes *= 0.3
        config = config_of("sds", weighting="one", guidance_scale=1.0, iterations=steps, warmup_iter=40)
        uneven = Condition({"weights": torch.tensor([[[0.425, 0.425, 0.075, 0.075]]])}).expand(views)
        conditioning = Conditioning(uneven, uneven, uneven, negative_is_unconditional=True)
        denoiser, rectifier = Denoiser(prior), rectifier_of(prior, strength)
        guide = Guidance(denoiser, SDS(config, denoiser), config.guidance, rectifier)
        z, found = 0.3 * latents(views), []
        for step in range(steps):
            output = guide(z.requires_grad_(), conditioning, step, rngs(views, step))
            [gradient] = torch.autograd.grad(output.loss, z)
            assert output.poses is not None
            rectifier.add(packed([output.poses]).double())
            z = (z - 0.2 * gradient).detach()
            found.append(float(prior.posterior(z, 0).mean()))
        # It swings around the middle, for the averages follow late.
        shares[strength] = sum(found[steps // 2 :]) / (steps // 2)
    assert shares[0.0] > 0.8
    assert shares[1.0] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_method_has_what_is_weighed(variant: str) -> None:
    """Parts of the views, one after the other, have the gradient of all."""
    prior = PixelPrior()
    rectifier = rectifier_of(prior)
    rectifier.marginal.copy_(UNEVEN.expand_as(rectifier.marginal))
    config, denoiser = config_of(variant), Denoiser(prior)
    guide = Guidance(denoiser, METHODS[config.guidance_type](config, denoiser), config.guidance, rectifier)
    images = torch.sigmoid(latents(VIEWS)).requires_grad_()
    whole = guide(images, prior.conditioning(0, VIEWS), 3, rngs(VIEWS))
    assert float(whole.diagnostics["grad_norm_pose"]) > 0
    assert whole.poses is not None
    assert guide(images, prior.conditioning(0, VIEWS), 3, rngs(VIEWS), colors=images + 0).poses is None
    first = guide(images[:1], prior.conditioning(0, 1), 3, rngs(VIEWS)[:1])
    torch.testing.assert_close(first.gradient, whole.gradient[:1])
