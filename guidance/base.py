"""What all guidances share: the contract of a method, the weight w(t), and the way a gradient becomes a loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any, Protocol

import torch

from config.schema import GuidanceParams
from guidance.prompts import Conditioning
from guidance.schedule import Schedule
from utils.rng import normal

if TYPE_CHECKING:
    from guidance.cfg import Denoiser


class Prior(Protocol):
    """A diffusion model as the guidances see it. The latents' trailing shape is its own business."""

    @property
    def alphas_cumprod(self) -> torch.Tensor:
        """[T] abar_t."""

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Latents z_0 [V, ...] float32 of images [V, 3, H, W] in [0, 1]; differentiable."""

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Images [V, 3, H', W'] in [0, 1] of clean latents z [V, ...]."""

    def eps(self, z: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        """Predicted noise, float32, shaped like z [B, ...], at timesteps t [B] given cond [B, L, D]."""


Prediction = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class PixelGradient:
    """A gradient with respect to the images, strength (D(reference) - D(target)) as in Eq. 14's L_CP: `reference` and
    `target` are clean latents [V, ...]; the 2 of the square, the weight and the 1 / V of the mean are in `strength`."""

    reference: torch.Tensor
    target: torch.Tensor
    strength: float


@dataclass(frozen=True)
class Gradient:
    """What a method wants of V latents z_0 [V, ...]; all of it is detached.

    Attributes:
        parts: by name, shaped like z_0 and weighted: they add up to the gradient with respect to z_0.
        times: by name, the timesteps [V] (host) that it looked at.
        predictions: by name, what gives the clean latents that its branches predict, shaped like z_0: for pictures, which
            few iterations make.
        pixels: a gradient with respect to the images besides.
    """

    parts: Mapping[str, torch.Tensor]
    times: Mapping[str, torch.Tensor]
    predictions: Mapping[str, Prediction] = field(default_factory=dict)
    pixels: PixelGradient | None = None


class Method(Protocol):
    """One way of distilling a prior. It sees latents only; `Guidance` takes care of the rest."""

    def __call__(
        self, z0: torch.Tensor, conditioning: Conditioning, step: int, rngs: Sequence[torch.Generator]
    ) -> Gradient:
        """The gradient for detached latents z0 [V, ...] at iteration `step` (from 0); `rngs`: a host generator for each
        view.

        Called without gradients being recorded.
        """


@dataclass(frozen=True)
class GuidanceOutput:
    """A scalar to differentiate, and what to look at.

    Attributes:
        loss: the scalar.
        times: by name, the mean over views of the timesteps that the method looked at.
        diagnostics: what to log: numbers, and detached scalars left on their device.
        gradient: [V, ...] with respect to the latents, scaled.
        predictions: by name, what gives the clean latents [V, ...] that the method's branches predict.
    """

    loss: torch.Tensor
    times: dict[str, float]
    diagnostics: dict[str, torch.Tensor | float]
    gradient: torch.Tensor
    predictions: Mapping[str, Prediction]


class Guidance:
    """What the training loop calls: encode, ask the method for its gradient, hand that to autograd.

    Args:
        denoiser: the prior that the method asks.
        method: sees latents, gives their gradient.
        params: `lambda_guidance`; `normalize_grad` first scales every view's gradient to unit RMS in the latents
            (views have timesteps of their own, and the noisiest would drown the others).
    """

    def __init__(self, denoiser: Denoiser, method: Method, params: GuidanceParams) -> None:
        self.denoiser, self.method, self.params = denoiser, method, params

    def __call__(
        self, images: torch.Tensor, conditioning: Conditioning, step: int, rngs: Sequence[torch.Generator]
    ) -> GuidanceOutput:
        """Guide images [V, 3, H, W] in [0, 1] at iteration `step` (from 0); `rngs`: a host generator for each
        view, from which alone its draws come."""
        z0 = self.denoiser.prior.encode(images)
        self.denoiser.evaluations = 0
        with torch.no_grad():
            wanted = self.method(z0.detach(), conditioning, step, rngs)
            gradient = reduce(torch.add, wanted.parts.values())
            scale = self._scale(gradient)
            gradient = scale * gradient
            parts = {f"grad_norm_{name}": scale * part for name, part in wanted.parts.items()}
            measured = {**parts, "grad_norm": gradient}
            times = {name: float(t.double().mean()) for name, t in wanted.times.items()}
            diagnostics: dict[str, torch.Tensor | float] = {
                "unet_evals_per_view": self.denoiser.evaluations / len(z0),
                **dict(zip(measured, torch._foreach_norm([*measured.values()]))),
            }
        loss = surrogate_loss(z0, gradient)
        if wanted.pixels is not None:
            with torch.no_grad():
                in_pixels = scale * self._pixel_gradient(wanted.pixels, images)
                diagnostics["grad_norm_pixels"] = in_pixels.norm()
            loss = loss + surrogate_loss(images, in_pixels)
        return GuidanceOutput(loss, times, diagnostics, gradient, wanted.predictions)

    def _scale(self, gradient: torch.Tensor) -> torch.Tensor | float:
        """lambda, divided by the RMS of each view if wanted (and if it is not 0): a number or [V, 1, ...]."""
        if not self.params.normalize_grad:
            return self.params.lambda_guidance
        rms = gradient.square().mean(dim=tuple(range(1, gradient.dim())), keepdim=True).sqrt()
        return self.params.lambda_guidance / rms.masked_fill(rms == 0, 1.0)

    def _pixel_gradient(self, pixels: PixelGradient, images: torch.Tensor) -> torch.Tensor:
        """[V, 3, H, W]: of Eq. 14's L_CP with respect to the images, which stand for D(F(z_e, e))."""
        decode = self.denoiser.prior.decode
        difference = decode(pixels.reference) - decode(pixels.target)
        if difference.shape != images.shape:
            difference = torch.nn.functional.interpolate(
                difference, size=images.shape[-2:], mode="bilinear", align_corners=False
            )
        return pixels.strength * difference


class Noise:
    """eps*: one noise for all views and iterations (SegmentDreamer Sec. 4.2, Consistent3D), or fresh ones.

    Args:
        fixed: draw it once, from `seed`.
        offset: standard deviation of a constant that is added to each channel.
    """

    def __init__(self, *, fixed: bool, seed: int, offset: float = 0.0) -> None:
        self.fixed, self.seed, self.offset = fixed, seed, offset
        self._kept: torch.Tensor | None = None

    @classmethod
    def of(cls, params: GuidanceParams, *, fixed: bool, offset: float = 0.0) -> Noise:
        """As `fix_noise` asks; where it leaves the choice to the method, `fixed` is that."""
        chosen = fixed if params.fix_noise is None else params.fix_noise
        return cls(fixed=chosen, seed=params.noise_seed, offset=offset)

    def __call__(self, z0: torch.Tensor, rngs: Sequence[torch.Generator]) -> torch.Tensor:
        """Noise that broadcasts against z0 [V, C, ...]; fresh noise of each view from its own of V generators."""
        if not self.fixed:
            return self._draw(z0, rngs)
        if self._kept is None:
            self._kept = self._draw(z0, [torch.Generator().manual_seed(self.seed)])
        return self._kept

    def _draw(self, z0: torch.Tensor, rngs: Sequence[torch.Generator]) -> torch.Tensor:
        noise = normal(z0.shape[1:], rngs)
        if self.offset:
            noise = noise + self.offset * normal((z0.shape[1], *[1] * (z0.dim() - 2)), rngs)
        return noise.to(z0, non_blocking=True)


def weight(name: str, t: torch.Tensor, schedule: Schedule) -> torch.Tensor:
    """w(t) [V] on the host for timesteps t [V].

    `sigma_over_alpha` is what SegmentDreamer and LucidDreamer run with, `sigma_squared` is DreamFusion's.
    """
    if name == "sigma_over_alpha":
        return schedule.sigma(t) / schedule.alpha(t)
    if name == "sigma_squared":
        return schedule.sigma(t) ** 2
    if name == "one":
        return torch.ones(len(t), dtype=torch.float64)
    raise ValueError(f"weighting must be 'sigma_over_alpha', 'one' or 'sigma_squared', got '{name}'")


def surrogate_loss(z0: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """A scalar whose derivative with respect to z0 is exactly `gradient` and whose value is |gradient|^2 / 2.

    That is the value of |z0 - sg(z0 - g)|^2 / 2, whose derivative is g only up to the rounding of z0 - (z0 - g): the
    residual that the guidance wants to see vanish, so that the logged loss can be read.
    """
    loss: torch.Tensor = _Surrogate.apply(z0, gradient)
    return loss


class _Surrogate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z0: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gradient)
        return 0.5 * gradient.square().sum()

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, None]:
        [gradient] = ctx.saved_tensors
        return upstream[0] * gradient, None
