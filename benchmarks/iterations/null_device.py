"""Device without numbers: torch's meta tensors, on which a run's iterations issue all their work and compute
nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diff_gaussian_rasterization import batched, cuda, cuda_driver, kernels
from diff_gaussian_rasterization.function import rasterize_with
from guidance.condition import Condition
from scene.statistics import DensificationStats
from training.state import Training

NULL = torch.device("meta")
"""Device that stands for the accelerator."""


class _Driver:
    """CUDA's driver for `cuda_driver`: every function of it does nothing, succeeds, and is noted by its name."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note

    def __getattr__(self, function: str) -> Callable[..., int]:
        def called(*args: object) -> int:
            self._note(function)
            return 0

        return called


class _Room:
    """Room for as many instances as a usual scene has: the device would write their number, and nobody can
    read it here.
    """

    def __init__(self) -> None:
        self.status = torch.empty(cuda.STATUS_WORDS, dtype=torch.int64, device=NULL)

    def for_scene(self, count: int, views: int) -> int:
        return max(1, cuda.FIRST_GUESS * count * views)


class _Engine(cuda.Engine):
    def _room(self, device: torch.device, count: int, views: Any) -> Any:
        return _Room()


def move_to_null_device(state: Training) -> None:
    """Move a run's Gaussians, moments, statistics, embeddings and networks, these in half precision as on an
    accelerator.
    """
    prior, prompts = state.prior, state.prompts
    for network in prior.networks().values():
        nn.Module.to(network, device=NULL, dtype=torch.float16)  # diffusers' own warns of the precision
    prior.device = NULL
    for name in ("_views", "_negative", "_inverse"):
        parts = getattr(prompts, name).parts
        setattr(prompts, name, Condition({key: part.to(NULL) for key, part in parts.items()}))
    model, optimizer = state.gaussians, state.optimizer
    moved = {name: nn.Parameter(_like(p), p.requires_grad) for name, p in model.raw().items()}
    model.set_raw(moved)
    for group in optimizer.adam.param_groups:
        group["params"] = [moved[group["name"]]]
    # As they are from the second iteration on.
    optimizer.set_moments(
        {
            name: {"exp_avg": _like(p), "exp_avg_sq": _like(p), "step": torch.empty((), device=NULL)}
            for name, p in moved.items()
            if p.requires_grad
        }
    )
    state.optimizer.stats = DensificationStats.zeros(len(model), NULL)
    state.device = NULL


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device=NULL)


@contextmanager
def null_device(note: Callable[[str], None] = lambda function: None) -> Iterator[None]:
    """Make NULL work as an accelerator inside.

    It renders with the CUDA backend, attends with a fused kernel and steps with the fused Adam. note: hears
    of the rasterizer's calls of the driver.
    """
    plain = F.scaled_dot_product_attention

    def attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **settings: Any) -> Tensor:
        if query.device != NULL:
            return plain(query, key, value, *args, **settings)
        return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, True)[0]

    def rasterize(*scene: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        return rasterize_with(engine, *scene)

    with (
        patch.object(cuda_driver, "_driver", lambda: _Driver(note)),
        patch.object(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=0)),
        patch.object(F, "scaled_dot_product_attention", attention),
        # It refuses what has no numbers.
        patch.object(batched, "check_tensors", lambda **tensors: None),
        patch.dict(batched.BACKENDS, {NULL.type: rasterize}),
        torch.library._scoped_library("aten", "IMPL") as library,
    ):
        library.impl("_fused_adam_", lambda *args, **settings: None, "Meta")
        engine = _Engine(cuda_driver.Module(b"", kernels.kernel_names(), 0))
        yield
