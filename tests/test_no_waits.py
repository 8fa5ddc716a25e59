"""Whole iterations, which fill the device's queue without ever looking at what is in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

import gaussian_renderer
import training.step
from config import Config
from diff_gaussian_rasterization.batched import RasterOutput
from scene.cameras import Cameras
from scene.densify import DensificationStats
from scene.optimizer import GaussianOptimizer
from tests.changed import changed
from tests.waits import DEVICE, Wait, no_waits
from training.faults import settle
from training.state import Training, assemble
from training.step import training_step
from utils.ranks import Ranks


class Rasterized(torch.autograd.Function):
    """Images [V, 5, H, W] without numbers: what the rasterizer's kernels make on a device of their own."""

    @staticmethod
    def forward(ctx: Any, views: int, height: int, width: int, *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs)
        return inputs[0].new_empty(views, 5, height, width)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        return (None, None, None, *(torch.empty_like(tensor) for tensor in ctx.saved_tensors))


def rasterize(
    means: Tensor,
    scales: Tensor,
    rotations: Tensor,
    opacities: Tensor,
    *,
    shs: Tensor,
    viewmats: Tensor,
    **rest: Any,
) -> RasterOutput:
    assert viewmats.device == rest["background"].device == means.device == DEVICE
    views, count = len(viewmats), len(means)
    means2d = means.new_empty(views, count, 2).requires_grad_()
    images = Rasterized.apply(
        views, rest["height"], rest["width"], means, scales, rotations, opacities, shs, means2d
    )
    radii = torch.empty(views, count, dtype=torch.int32, device=DEVICE)
    found = {
        "rgb": images[:, :3],
        "depth": images[:, 3:4],
        "alpha": images[:, 4:],
        "radii": radii,
        "means2d": means2d,
    }
    return RasterOutput(**{field.name: found.get(field.name, radii) for field in fields(RasterOutput)})


def on_the_device(config: Config, monkeypatch: pytest.MonkeyPatch) -> Training:
    """A run whose Gaussians, networks and embeddings have been moved to where nobody may look."""
    state = assemble(config)
    prior, prompts = state.prior, state.prompts
    for network in (prior.vae, prior.unet):
        network.to(DEVICE)
    prior.device = DEVICE
    for name in ("_views", "_negative", "_inverse"):
        setattr(prompts, name, getattr(prompts, name).to(DEVICE))
    model = state.gaussians
    model.set_raw({name: torch.nn.Parameter(p.detach().to(DEVICE)) for name, p in model.raw().items()})
    for group in state.optimizer.adam.param_groups:
        group["params"] = [model.raw()[group["name"]]]
    state.stats = DensificationStats.zeros(len(model), DEVICE)
    state.device = DEVICE
    monkeypatch.setattr(gaussian_renderer, "rasterize", rasterize)
    # torch's fused Adam has no kernel for tensors without numbers.
    monkeypatch.setattr(state.optimizer.adam, "step", lambda: None)
    return state


KEYS = {
    "C_batch_size": 4,
    "bg_aug_ratio": 1,
    "flip_aug_ratio": 0.5,
    "shs_aug_ratio": 0.5,
    "scale_aug_ratio": 1,
    "sh_degree": 1,
    "jitter_pose": True,
    "lambda_alpha": 1.0,
    "lambda_alpha_binary": 1.0,
    "max_scale": 0.1,
    "min_color": 0.1,
    "BEG": True,
    "start_reset_iter": 0,
    "densify_from_iter": 100,
}


@pytest.mark.parametrize(
    ("method", "keep"),
    [
        *((method, "nothing") for method in ("sds", "ism", "cds", "gcs", "sctd")),
        ("sds", "geometry"),
        ("sds", "color"),
    ],
)
def test_an_iteration_waits_for_nothing(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, method: str, keep: str
) -> None:
    state = on_the_device(changed(tiny_config, guidance_type=method, keep=keep, **KEYS), monkeypatch)
    with no_waits():
        for step in (1, 2, 3):
            iteration = training_step(state, step)
    assert len(state.noted) == 3
    assert iteration.numbers["loss/guidance"].device == DEVICE  # type: ignore[union-attr]


def test_not_even_in_parts(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    state = on_the_device(changed(tiny_config, **KEYS), monkeypatch)
    state.counts.views_at_once = 3
    with no_waits():
        training_step(state, 1)
    assert len(state.noted) == 1


def test_the_log_does(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    state = on_the_device(changed(tiny_config, **KEYS), monkeypatch)
    with no_waits():
        training_step(state, 1)
        with pytest.raises(Wait):
            settle(state)


def test_waits_in_an_iteration_are_seen(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these faults is one that an earlier version had."""
    measure, seen = GaussianOptimizer._measure, training.step.what_was_seen

    def looks_at_norms(self: GaussianOptimizer) -> Any:
        update = measure(self)
        [float(norm) for norm in update.gradients.values()]
        return update

    def copies_and_waits(self: Cameras, device: torch.device) -> Cameras:
        return self._map(lambda tensor: tensor.to(device))

    def masks(parts: Sequence[Any], cameras: Cameras, ranks: Ranks) -> DensificationStats:
        found = seen(parts, cameras, ranks)
        found.views[found.max_radii > 0] += 1
        return found

    for owner, name, fault in (
        (GaussianOptimizer, "_measure", looks_at_norms),
        (Cameras, "to", copies_and_waits),
        (training.step, "what_was_seen", masks),
    ):
        with monkeypatch.context() as patch:
            state = on_the_device(changed(tiny_config, **KEYS), patch)
            patch.setattr(owner, name, fault)
            with no_waits(), pytest.raises(Wait):
                training_step(state, 1)
