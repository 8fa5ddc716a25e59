"""All that an iteration changes, as tensors by name, and back: what an exact checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scene.densify import DensificationStats
from scene.gaussian_model import ATTRIBUTES, GaussianModel
from scene.optimizer import GaussianOptimizer
from utils.device import HOST

if TYPE_CHECKING:
    from config.schema import OptimizationParams


def snapshot(optimizer: GaussianOptimizer, stats: DensificationStats) -> dict[str, Tensor]:
    """Gaussians, Adam's moments and densification statistics; copies on the host."""
    named: dict[str, Tensor] = {f"gaussians/{name}": value for name, value in optimizer.model.raw().items()}
    named |= {
        f"adam/{name}/{key}": value
        for name, state in optimizer.moments().items()
        for key, value in state.items()
    }
    named |= {f"stats/{field.name}": getattr(stats, field.name) for field in fields(stats)}
    return {name: value.detach().to(HOST, copy=True).contiguous() for name, value in named.items()}


def restore(
    tensors: Mapping[str, Tensor],
    params: OptimizationParams,
    extent: float,
    device: torch.device,
) -> tuple[GaussianOptimizer, DensificationStats]:
    """What `snapshot` was given, its model in the optimizer.

    Raises ValueError, one sentence, if the tensors are not those of a snapshot.
    """
    try:
        model = GaussianModel({name: tensors[f"gaussians/{name}"].to(device) for name in ATTRIBUTES})
        optimizer = GaussianOptimizer(model, params, extent)
        optimizer.set_moments(
            {name: _below(f"adam/{name}", tensors) for name in ATTRIBUTES if _below(f"adam/{name}", tensors)}
        )
        stats = DensificationStats(
            *(tensors[f"stats/{field.name}"].to(device) for field in fields(DensificationStats))
        )
    except KeyError as error:
        raise ValueError(f"The checkpoint has no {error.args[0]}: it is another program's.") from None
    if any(getattr(stats, field.name).shape != (len(model),) for field in fields(stats)):
        raise ValueError(f"The checkpoint's statistics are not those of its {len(model)} Gaussians.")
    return optimizer, stats


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those whose name begins with `prefix`/, by the rest of it."""
    start = prefix + "/"
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
