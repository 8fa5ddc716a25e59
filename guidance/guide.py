"""The step between the training loop and a method: encode, get the method's gradient, make it a loss."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from config.schema import GuidanceParams
from guidance.contract import GuidanceOutput, Method, PixelGradient
from guidance.denoiser import Denoiser
from guidance.poses import PoseRectifier
from guidance.prompts import Conditioning


class Guidance:
    """The training loop's call: encode, get the method's gradient, hand it to autograd.

    Args:
        denoiser: the prior that the method uses.
        method: sees latents, gives their gradient.
        params: `lambda_guidance`; `normalize_grad` first scales the gradient of every view, or set of views, to unit
            RMS in the latents (each has timesteps of its own, and the noisiest would drown the others).
        rectifier: adds a part to the gradient of colours; a disparity has no face to tell.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        method: Method,
        params: GuidanceParams,
        rectifier: PoseRectifier | None = None,
    ) -> None:
        self.denoiser, self.method, self.params = denoiser, method, params
        self.rectifier = rectifier

    def __call__(
        self,
        images: Tensor,
        conditioning: Conditioning,
        step: int,
        rngs: Sequence[torch.Generator],
        *,
        colors: Tensor | None = None,
    ) -> GuidanceOutput:
        """Guide images [V, 3, H, W] in [0, 1] at iteration `step` (from 0).

        Args:
            rngs: a host generator for each view, or set of views; all draws come from these.
            colors: [V, 3, H, W], which a gradient in pixels acts on, if that is not on the images: the render of
                the views whose disparity the images are, as in the released code.
        """
        colors = images if colors is None else colors
        z0 = self.denoiser.prior.encode(images)
        self.denoiser.evaluations = 0
        with torch.no_grad():
            wanted, poses = self.method(z0.detach(), conditioning, step, rngs), None
            if self.rectifier is not None and colors is images:
                wanted, poses = self.rectifier(wanted, self.denoiser.prior)
            gradient = reduce(torch.add, wanted.parts.values())
            scale = self._scale(gradient)
            gradient = scale * gradient
            parts = {f"grad_norm_{name}": scale * part for name, part in wanted.parts.items()}
            measured = {**parts, "grad_norm": gradient}
            times = {name: float(t.double().mean()) for name, t in wanted.times.items()}
            diagnostics: dict[str, Tensor | float] = {
                "unet_evals_per_view": self.denoiser.evaluations / len(z0),
                **dict(zip(measured, torch._foreach_norm([*measured.values()]))),
            }
        loss = surrogate_loss(z0, gradient)
        if wanted.pixels is not None:
            with torch.no_grad():
                in_pixels = _per_image(scale, len(colors)) * self._pixel_gradient(wanted.pixels, colors)
                diagnostics["grad_norm_pixels"] = in_pixels.norm()
            loss = loss + surrogate_loss(colors, in_pixels)
        return GuidanceOutput(loss, times, diagnostics, gradient, wanted.predictions, poses)

    def _scale(self, gradient: Tensor) -> Tensor | float:
        """Return lambda, divided if wanted by the RMS of each view (if that is not 0): a number or [V, 1, ...]."""
        if not self.params.normalize_grad:
            return self.params.lambda_guidance
        rms = gradient.square().mean(dim=tuple(range(1, gradient.dim())), keepdim=True).sqrt()
        return self.params.lambda_guidance / rms.masked_fill(rms == 0, 1.0)

    def _pixel_gradient(self, pixels: PixelGradient, colors: Tensor) -> Tensor:
        """Gradient [V, 3, H, W] of Eq. 14's L_CP with respect to the colours, which stand for D(F(z_e, e))."""
        decode = self.denoiser.prior.decode
        difference = decode(pixels.reference) - decode(pixels.target)
        if difference.shape != colors.shape:
            difference = torch.nn.functional.interpolate(
                difference, size=colors.shape[-2:], mode="bilinear", align_corners=False
            )
        return pixels.strength * difference


def _per_image(scale: Tensor | float, images: int) -> Tensor | float:
    """Return a factor for each row of latents [R, 1, ...] as one for each of the images [V, 1, 1, 1] that rows stand for."""
    if not isinstance(scale, Tensor):
        return scale
    return scale.reshape(-1, 1, 1, 1).repeat_interleave(images // len(scale), dim=0)


def surrogate_loss(z0: Tensor, gradient: Tensor) -> Tensor:
    """Return a scalar whose derivative with respect to z0 is exactly `gradient`, with the value |gradient|^2 / 2.

    The value is that of |z0 - sg(z0 - g)|^2 / 2, whose derivative is g only up to the rounding of
    z0 - (z0 - g). It is the residual that the guidance wants to see vanish, so the logged loss can be read.
    """
    loss: Tensor = _Surrogate.apply(z0, gradient)
    return loss


class _Surrogate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z0: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return 0.5 * gradient.square().sum()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        [gradient] = ctx.saved_tensors
        return upstream[0] * gradient, None
