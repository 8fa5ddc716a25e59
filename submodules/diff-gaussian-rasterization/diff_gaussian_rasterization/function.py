"""Autograd function of the compiled backends: it allocates tensors, and an engine fills them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .scene import COUNTS, Gaussians, Views

PARAMETERS = ("means", "scales", "rotations", "opacities", "shs", "colors", "covariances")
CAMERAS = ("viewmats", "focals", "principals", "backgrounds")

Tensors = dict[str, Tensor | None]  # None: not given, or not wanted


@dataclass(frozen=True)
class Images:
    """Tensors that a forward fills: rgb [V, 3, H, W], depth and alpha [V, 1, H, W], radii [V, N], counts [V,
    6], means2d [V, N, 2].
    """

    rgb: Tensor
    depth: Tensor
    alpha: Tensor
    radii: Tensor
    counts: Tensor
    means2d: Tensor


class Engine(Protocol):
    """Engine in float32 on contiguous tensors of one device; it writes every entry of what it is given to fill."""

    def forward(self, views: Views, inputs: Tensors, images: Images) -> Any:
        """Fill `images`; inputs are by the names in PARAMETERS and CAMERAS. Returns what backward needs besides."""

    def backward(
        self, state: Any, views: Views, inputs: Tensors, images: Images, upstream: Tensors, gradients: Tensors
    ) -> None:
        """Fill `gradients`, of means2d and of inputs, from those of rgb, depth and alpha. May be called again."""


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, engine: Engine, views: Views, values: Tensor, anchor: Tensor, *inputs: Tensor | None
    ) -> tuple[Tensor, ...]:
        v, n = values.shape[:2]
        images = Images(
            rgb=values.new_empty(v, 3, views.height, views.width),
            depth=values.new_empty(v, 1, views.height, views.width),
            alpha=values.new_empty(v, 1, views.height, views.width),
            radii=values.new_empty(v, n, dtype=torch.int32),
            counts=values.new_empty(v, len(COUNTS), dtype=torch.int32),
            means2d=values,
        )
        # The state rides on a tensor, so that autograd lets it go with the others as soon as backward has run, not when the
        # last output is forgotten: the next forward finds its memory free.
        carrier: Any = values.new_empty(0)
        carrier.state = engine.forward(views, _named(inputs), images)
        ctx.engine, ctx.views = engine, views
        outputs = (images.rgb, images.depth, images.alpha, images.radii, images.counts)
        ctx.save_for_backward(*inputs, *outputs, values, carrier)
        ctx.mark_non_differentiable(images.radii, images.counts)
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
        names = (*CAMERAS, *PARAMETERS)
        *saved, carrier = ctx.saved_tensors
        inputs, images = _named(saved[: len(names)]), Images(*saved[len(names) :])
        upstream = {
            name: None if g is None else _plain(g) for name, g in zip(("rgb", "depth", "alpha"), given)
        }
        wanted = dict(zip(("means2d", *names), ctx.needs_input_grad[3:]))
        gradients: Tensors = {
            name: torch.empty_like(tensor) if tensor is not None and wanted[name] else None
            for name, tensor in {"means2d": images.means2d, **inputs}.items()
        }
        background = gradients.pop("backgrounds")
        # Checkpointing and other hooks on saved tensors hand back a copy without it.
        state = carrier.state if hasattr(carrier, "state") else ctx.engine.forward(ctx.views, inputs, images)
        ctx.engine.backward(state, ctx.views, inputs, images, upstream, gradients)
        if background is not None:
            g_rgb = upstream["rgb"]
            background = (
                torch.zeros_like(background)
                if g_rgb is None
                else (g_rgb * (1 - images.alpha)).sum(dim=(2, 3))
            )
        gradients["backgrounds"] = background
        return (None, None, None, gradients["means2d"], *(gradients[name] for name in names))


def _plain(tensor: Tensor) -> Tensor:
    """Tensor in float32, contiguous, and with no sign still to be applied: what a pointer to its numbers may
    stand for.
    """
    return tensor.float().contiguous().resolve_neg()


def _named(inputs: Sequence[Tensor | None]) -> Tensors:
    return dict(zip((*CAMERAS, *PARAMETERS), inputs))


def rasterize_with(
    engine: Engine, g: Gaussians, views: Views, anchor: Tensor, values: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute by the contract of reference.rasterize, in float32."""
    given = (*(getattr(views, name) for name in CAMERAS), *(getattr(g, name) for name in PARAMETERS))
    single = values if values.dtype == torch.float32 else values.float()
    outputs = _Rasterize.apply(
        engine, views, single, anchor, *(None if t is None else _plain(t) for t in given)
    )
    if single is not values:
        values.copy_(single)
    return outputs
