"""The way from a method's gradient to a loss, the weights, the noise, and what all methods have in common."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from config.guidance_params import GuidanceParams
from config.schema import Config
from guidance import Denoiser, Gradient, Guidance
from guidance import build as build_guidance
from guidance.contract import PixelGradient
from guidance.guide import surrogate_loss
from guidance.noise import Noise
from guidance.prompts import Conditioning
from guidance.schedule import Schedule, weight
from tests.draws import rngs
from tests.guidance.analytic_prior import AnalyticPrior, PixelPrior, stable_diffusion_alphas
from tests.guidance.cases import VARIANTS, VIEWS, build, latents


class Fixed:
    """A method whose gradient is always the same."""

    def __init__(self, gradient: Gradient) -> None:
        self.gradient = gradient

    def __call__(
        self, z0: Tensor, conditioning: Conditioning, step: int, rngs: Sequence[torch.Generator]
    ) -> Gradient:
        assert not z0.requires_grad
        assert not torch.is_grad_enabled()
        return self.gradient


def guide(gradient: Gradient, prior: AnalyticPrior, **params: object) -> Guidance:
    return Guidance(Denoiser(prior), Fixed(gradient), GuidanceParams.model_validate(params))


def derivative(guidance: Guidance, images: Tensor) -> Tensor:
    images = images.detach().requires_grad_()
    prior = guidance.denoiser.prior
    assert isinstance(prior, AnalyticPrior)
    guidance(images, prior.conditioning(0, len(images)), 0, rngs(len(images))).loss.backward()
    assert images.grad is not None
    return images.grad


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    """Latents far larger than the gradient, where z - (z - g) would round g away."""
    rng = torch.Generator().manual_seed(0)
    z0 = (1e4 * torch.randn(2, 4, 8, 8, generator=rng)).requires_grad_()
    return z0, 1e-3 * torch.randn(2, 4, 8, 8, generator=rng)


def test_derivative_of_the_loss_is_exactly_the_gradient(pair: tuple[Tensor, Tensor]) -> None:
    z0, gradient = pair
    loss = surrogate_loss(z0, gradient)
    assert torch.equal(torch.autograd.grad(loss, z0)[0], gradient)
    torch.testing.assert_close(loss.detach(), 0.5 * gradient.square().sum())


def test_gradient_reaches_what_the_latents_came_from() -> None:
    image = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    gradient = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    surrogate_loss(image**3, gradient).backward()
    torch.testing.assert_close(image.grad, 3 * image.detach() ** 2 * gradient)


def test_parts_add_up_and_are_reported() -> None:
    parts = {"near": latents(3, seed=1), "far": latents(3, seed=2)}
    wanted = Gradient(parts, times={"t": torch.tensor([1, 2, 6])}, predictions={"clean": lambda: latents(3)})
    guidance = guide(wanted, AnalyticPrior(), lambda_guidance=0.1)
    output = guidance(latents(3), AnalyticPrior().conditioning(0, 3), 0, rngs(3))
    expected = 0.1 * (parts["near"] + parts["far"])
    torch.testing.assert_close(derivative(guidance, latents(3)), expected)
    torch.testing.assert_close(output.gradient, expected)
    assert output.predictions is wanted.predictions
    assert output.times["t"] == 3.0
    assert output.diagnostics["unet_evals_per_view"] == 0
    for name, part in {**parts, "": parts["near"] + parts["far"]}.items():
        reported = output.diagnostics[f"grad_norm_{name}".rstrip("_")]
        torch.testing.assert_close(reported, 0.1 * part.norm())


def test_normalized_gradient() -> None:
    uneven = latents(3) * torch.logspace(-9, 9, 3, dtype=torch.float64).view(3, 1, 1, 1)
    uneven[1] = 0
    pixels = PixelGradient(latents(3, seed=1), latents(3, seed=2), strength=2.0)
    wanted = Gradient({"all": uneven}, times={}, pixels=pixels)
    prior = AnalyticPrior()
    found = derivative(guide(wanted, prior, lambda_guidance=0.1, normalize_grad=True), latents(3))
    rms = uneven.flatten(1).square().mean(1).sqrt().view(3, 1, 1, 1)
    both = uneven + 2.0 * (pixels.reference - pixels.target)
    # A view without a gradient in the latents keeps that in the pixels as it is.
    torch.testing.assert_close(found, 0.1 * both / torch.where(rms > 0, rms, 1.0))


@pytest.mark.parametrize("size", [2, 4, 8])
def test_pixel_gradient_at_the_size_of_the_images(size: int) -> None:
    """Clean latents that differ by a constant make pictures that do, at whatever size they are decoded."""
    prior = AnalyticPrior()
    pixels = PixelGradient(latents(2), latents(2) - 0.25, strength=3.0)
    wanted = Gradient({"none": torch.zeros(2, 4, size, size, dtype=torch.float64)}, {}, pixels=pixels)
    images = torch.zeros(2, 4, size, size, dtype=torch.float64)
    found = derivative(guide(wanted, prior, lambda_guidance=0.1), images)
    torch.testing.assert_close(found, torch.full_like(images, 0.1 * 3.0 * 0.25))


def test_pixel_gradient_acts_on_the_colours_beside_the_images() -> None:
    """So it is in an iteration that guides the disparity: the latents' gradient goes there, that of the pixels to the colours."""
    prior = AnalyticPrior()
    pixels = PixelGradient(latents(2), latents(2) - 0.25, strength=3.0)
    wanted = Gradient({"all": latents(2, seed=4)}, {}, pixels=pixels)
    images, colors = (torch.zeros(2, 4, 4, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    guidance, rngs_ = guide(wanted, prior, lambda_guidance=0.1), rngs(2)
    guidance(images, prior.conditioning(0, 2), 0, rngs_, colors=colors).loss.backward()
    torch.testing.assert_close(images.grad, 0.1 * latents(2, seed=4))
    torch.testing.assert_close(colors.grad, torch.full_like(colors, 0.1 * 3.0 * 0.25))


def test_weights() -> None:
    schedule, t = Schedule.diffusion(stable_diffusion_alphas()), torch.tensor([20, 500, 980])
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    assert torch.equal(weight("sigma_over_alpha", t, schedule), sigma / alpha)
    assert torch.equal(weight("sigma_squared", t, schedule), sigma**2)
    assert torch.equal(weight("one", t, schedule), torch.ones(3).double())
    with pytest.raises(ValueError, match=r"weighting must be .*, got 'two'"):
        weight("two", t, schedule)


def drawn(noise: Noise, seed: int = 0) -> Tensor:
    """The noise of two iterations of two views [2, 2, 4, 4, 4]."""
    views, z0 = rngs(2, seed), torch.zeros(2, 4, 4, 4)
    return torch.stack([torch.broadcast_to(noise(z0, views), z0.shape) for _ in range(2)])


def test_fixed_noise_is_one_for_all_views_and_iterations() -> None:
    fixed = drawn(Noise(fixed=True, seed=0))
    assert torch.equal(fixed, fixed[:1, :1].expand_as(fixed))
    assert torch.equal(fixed, drawn(Noise(fixed=True, seed=0), seed=5))
    assert not torch.equal(fixed, drawn(Noise(fixed=True, seed=1)))


def test_free_noise_is_another_every_time() -> None:
    free = drawn(Noise(fixed=False, seed=0))
    assert len(torch.unique(free.flatten(0, 1).flatten(1), dim=0)) == 4
    assert torch.equal(free, drawn(Noise(fixed=False, seed=9)))
    assert not torch.equal(free, drawn(Noise(fixed=False, seed=0), seed=1))


@pytest.mark.parametrize("fixed", [True, False])
def test_offset_is_a_constant_per_channel(fixed: bool) -> None:
    """The offset is that of the one noise, or of each view's own."""
    z0 = torch.zeros(2, 4, 8, 8)
    plain, shifted = (Noise(fixed=fixed, seed=0, offset=offset)(z0, rngs(2)) for offset in (0.0, 0.1))
    offsets = (shifted - plain).flatten(-2)
    torch.testing.assert_close(offsets, offsets[..., :1].expand_as(offsets), rtol=0, atol=1e-6)
    assert len(torch.unique(offsets[..., 0].flatten(), sorted=False).round(decimals=5).unique()) == (
        4 if fixed else 8
    )
    assert 0 < float(offsets.abs().max()) < 0.5


@pytest.mark.parametrize(
    ("variant", "fixed"),
    [("sds", False), ("ism", False), ("cds", True), ("cds released", True), ("gcs", None), ("sctd", True), ("sctd released", True)],
)  # fmt: skip
def test_which_methods_fix_the_noise(variant: str, fixed: bool | None) -> None:
    """GCS does with Perp-Neg only."""
    prior = AnalyticPrior()
    for wanted, perpneg in product((None, True, False), (True, False)):
        method: Any = build(variant, prior, fix_noise=wanted, perpneg=perpneg).method
        own = perpneg if fixed is None else fixed
        assert method.noise.fixed == (own if wanted is None else wanted)


@pytest.mark.parametrize(
    ("variant", "with_perp_neg", "without"),
    [("sds", 0.1, 0.1), ("ism", 0.1, 0.1), ("gcs", 0.1, 0.1), ("cds", 0, 0), ("cds released", 0, 0), ("sctd", 0, 0), ("sctd released", 0.05, 0.1)],
)  # fmt: skip
def test_offsets_of_the_noise(variant: str, with_perp_neg: float, without: float) -> None:
    """Each is a constant for each channel, drawn after the noise, and replaced by `noise_offset` where that is given."""
    prior = AnalyticPrior()
    for perpneg, given in product((True, False), (None, 0.0, 0.3)):
        noise: Noise = build(variant, prior, perpneg=perpneg, noise_offset=given, fix_noise=True).method.noise  # type: ignore[attr-defined]
        rng = torch.Generator().manual_seed(0)
        plain, constant = (torch.randn(shape, generator=rng) for shape in ((4, 4, 4), (4, 1, 1)))
        offset = (with_perp_neg if perpneg else without) if given is None else given
        torch.testing.assert_close(noise(torch.zeros(2, 4, 4, 4), rngs(2))[0], plain + offset * constant)
    # SegmentDreamer's fresh noise has the larger one with Perp-Neg too.
    fresh: Noise = build(variant, prior, fix_noise=False).method.noise  # type: ignore[attr-defined]
    assert fresh.offset == without


@pytest.mark.parametrize("variant", VARIANTS)
def test_same_seed_same_gradient(variant: str) -> None:
    gradients = [derivative_of_seed(variant, seed) for seed in (0, 0, 1)]
    assert torch.equal(gradients[0], gradients[1])
    assert not torch.equal(gradients[0], gradients[2])


def derivative_of_seed(variant: str, seed: int) -> Tensor:
    prior, images = PixelPrior(), torch.full((VIEWS, 4, 4, 4), 0.4, requires_grad=True)
    build(variant, prior)(images, prior.conditioning(0, VIEWS), 3, rngs(VIEWS, seed)).loss.backward()
    assert images.grad is not None
    return images.grad


@pytest.mark.parametrize("variant", VARIANTS)
def test_views_do_not_see_each_other(variant: str) -> None:
    """A view's gradient is the same whatever the others show (GCS takes the mean over as many)."""
    prior, images = PixelPrior(), torch.sigmoid(latents(VIEWS))
    other = images.clone()
    other[1:] = 0.5
    conditioning = prior.conditioning(0, VIEWS, perp_neg=True)
    found = []
    for shown in (images, other):
        leaf = shown.clone().requires_grad_()
        build(variant, prior)(leaf, conditioning, 399, rngs(VIEWS)).loss.backward()
        assert leaf.grad is not None
        found.append(leaf.grad)
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-12, atol=1e-12)
    assert not torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "sctd exact"])
def test_nothing_to_do_at_a_lone_mode(variant: str) -> None:
    """Prompt, no prompt and noise agree where the data is one point, so the gradient vanishes."""
    prior = AnalyticPrior(spread=0.0)
    prior.modes = prior.modes[:1].expand(4, -1)
    found = derivative(build(variant, prior), prior.modes.reshape(4, 4, 4, 4).double())
    assert float(found.abs().max()) < 1e-4


def test_an_unknown_guidance_is_named() -> None:
    config = Config().model_copy(update={"guidance_type": "vsd"})
    with pytest.raises(ValueError, match="'vsd' is not available; choose one of sds, ism, cds, gcs, sctd"):
        build_guidance(config, AnalyticPrior())


@pytest.mark.parametrize(
    ("fix_noise", "of_the_method", "expected"),
    [(None, True, True), (None, False, False), (True, False, True), (False, True, False)],
)
def test_noise_is_as_the_method_has_it_unless_told(
    fix_noise: bool | None, of_the_method: bool, expected: bool
) -> None:
    params = GuidanceParams(fix_noise=fix_noise, noise_seed=7)
    noise = Noise.of(params, fixed=of_the_method, offset=0.1)
    assert (noise.fixed, noise.seed, noise.offset) == (expected, 7, 0.1)
