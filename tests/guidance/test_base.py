"""The way from a gradient to a loss, the weights, and classifier-free guidance."""

from __future__ import annotations

import pytest
import torch

from config.guidance_params import GuidanceParams
from guidance import base, cfg
from guidance.schedule import Schedule
from tests.guidance.analytic_prior import AnalyticPrior, stable_diffusion_alphas


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Latents far larger than the gradient, where z - (z - g) would round g away."""
    rng = torch.Generator().manual_seed(0)
    z0 = (1e4 * torch.randn(2, 4, 8, 8, generator=rng)).requires_grad_()
    return z0, 1e-3 * torch.randn(2, 4, 8, 8, generator=rng)


def test_derivative_of_the_loss_is_exactly_the_gradient(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    z0, gradient = pair
    loss = base.surrogate_loss(z0, gradient)
    assert torch.equal(torch.autograd.grad(loss, z0)[0], gradient)
    torch.testing.assert_close(loss.detach(), 0.5 * gradient.square().sum())


def test_gradient_reaches_what_the_latents_came_from() -> None:
    image = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    gradient = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    base.surrogate_loss(image**3, gradient).backward()
    torch.testing.assert_close(image.grad, 3 * image.detach() ** 2 * gradient)


def test_scaling_of_the_gradient(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    z0, gradient = pair
    plain = base.to_output(z0, gradient, GuidanceParams(lambda_guidance=0.1), {"t": 3.0})
    assert torch.equal(torch.autograd.grad(plain.loss, z0)[0], 0.1 * gradient)
    assert plain.diagnostics["t"] == 3.0
    torch.testing.assert_close(plain.diagnostics["grad_norm"], (0.1 * gradient).norm())
    params = GuidanceParams(lambda_guidance=0.1, normalize_grad=True)
    uneven = gradient * torch.logspace(-3, 3, len(gradient)).view(-1, *[1] * (gradient.dim() - 1))
    scaled = torch.autograd.grad(base.to_output(z0, uneven, params, {}).loss, z0)[0]
    of_each_view = scaled.flatten(1).square().mean(dim=1).sqrt()
    torch.testing.assert_close(of_each_view, torch.full_like(of_each_view, 0.1))
    zero = torch.autograd.grad(base.to_output(z0, 0 * gradient, params, {}).loss, z0)[0]
    assert torch.equal(zero, torch.zeros_like(zero))


def test_weights() -> None:
    schedule, t = Schedule(stable_diffusion_alphas()), torch.tensor([20, 500, 980])
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    assert torch.equal(base.weight("sigma_over_alpha", t, schedule), sigma / alpha)
    assert torch.equal(base.weight("sigma_squared", t, schedule), sigma**2)
    assert torch.equal(base.weight("one", t, schedule), torch.ones(3).double())
    with pytest.raises(ValueError, match=r"weighting must be .*, got 'two'"):
        base.weight("two", t, schedule)


def test_classifier_free_guidance() -> None:
    n, y = torch.randn(2, 3, 4, 8, 8)
    torch.testing.assert_close(cfg.combine(n, y, 0.0), n)
    torch.testing.assert_close(cfg.combine(n, y, 1.0), y)
    torch.testing.assert_close(cfg.combine(n, y, 7.5) - n, 7.5 * (y - n))


def test_all_conditions_go_through_the_network_in_one_batch() -> None:
    prior = AnalyticPrior()
    z, t = torch.randn(3, 4, 4, 4), torch.tensor([20, 500, 980])
    conditioning = prior.conditioning(0, 3, negative=True)
    conditions = [conditioning.positive, conditioning.negative, conditioning.unconditional]
    together = cfg.predict(prior, z, t, conditions)
    assert [size for size, _ in prior.calls] == [9]
    for prediction, condition in zip(together, conditions):
        torch.testing.assert_close(prediction, prior.eps(z, t, condition))
