"""A run's tensors by name, and back: all that an iteration changes, as an exact checkpoint holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import torch
from torch import Tensor

from config.schema import OptimizationParams
from scene.gaussian_model import ATTRIBUTES, GaussianModel
from scene.optimizer import GaussianOptimizer
from scene.statistics import DensificationStats
from utils.device import HOST


def snapshot(optimizer: GaussianOptimizer) -> dict[str, Tensor]:
    """Copy Gaussians, those that are fixed, Adam's moments and densification statistics to the host."""
    named: dict[str, Tensor] = {f"gaussians/{name}": value for name, value in optimizer.model.raw().items()}
    named |= {
        f"adam/{name}/{key}": value
        for name, state in optimizer.moments().items()
        for key, value in state.items()
    }
    named |= {
        f"stats/{field.name}": getattr(optimizer.stats, field.name) for field in fields(DensificationStats)
    }
    if optimizer.fixed is not None:
        named["fixed"] = optimizer.fixed
    return {name: value.detach().to(HOST, copy=True).contiguous() for name, value in named.items()}


def restore(
    tensors: Mapping[str, Tensor], params: OptimizationParams, extent: float, device: torch.device
) -> GaussianOptimizer:
    """Rebuild the optimizer that `snapshot` was given, with its model and statistics.

    Raises ValueError, one sentence, if the tensors are not those of a snapshot.
    """
    try:
        model = GaussianModel({name: tensors[f"gaussians/{name}"].to(device) for name in ATTRIBUTES})
        optimizer = GaussianOptimizer(model, params, extent)
        optimizer.set_moments(
            {name: _below(f"adam/{name}", tensors) for name in ATTRIBUTES if _below(f"adam/{name}", tensors)}
        )
        optimizer.stats = stats = DensificationStats(
            *(tensors[f"stats/{field.name}"].to(device) for field in fields(DensificationStats))
        )
    except KeyError as error:
        raise ValueError(f"The checkpoint has no {error.args[0]}: it is another program's.") from None
    if any(getattr(stats, field.name).shape != (len(model),) for field in fields(stats)):
        raise ValueError(f"The checkpoint's statistics are not those of its {len(model)} Gaussians.")
    if "fixed" in tensors:
        optimizer.fix(tensors["fixed"].to(device))
    return optimizer


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors whose name begins with `prefix`/, by the rest of it."""
    start = prefix + "/"
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
