"""Run the training step, unchanged, with a counter that learns which of its parts is at work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import training.step
from scene.statistics import DensificationStats
from training.state import Training

from .launches import Launches

CAMERAS, RENDER, GUIDANCE, PENALTIES = "cameras and prompts", "render", "guidance's rest", "penalties"
BACKWARD, OPTIMIZER, DENSITY, REST = "backward: the rest", "optimizer", "density control", "rest"
ENCODER, UNET, DECODER, BACKWARD_ENCODER = "encoder", "U-Net", "decoder", "backward: encoder"
OUTSIDE = (CAMERAS, RENDER, GUIDANCE, PENALTIES, BACKWARD, OPTIMIZER, DENSITY, REST)
"""Parts of an iteration outside of the networks, in their order; "the rest" of the backward pass is that of the penalties,
the rasterizer and the activations."""
NETWORKS = (ENCODER, UNET, DECODER, BACKWARD_ENCODER)


@contextmanager
def watched(state: Training, launches: Launches) -> Iterator[None]:
    """Count, inside, what `training.step.training_step` does with `state`, for OUTSIDE and NETWORKS."""
    step, vae = training.step, state.prior.vae
    network = state.prior.network

    def of(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            with launches.of(part):
                return function(*args, **kwargs)

        return counted

    def guide(*args: Any, **kwargs: Any) -> Any:
        with launches.of(GUIDANCE):
            guided = state_guide(*args, **kwargs)
        # Until `backward` is called.
        launches.turn_to(PENALTIES)
        return guided

    def encode(images: Tensor) -> Any:
        with launches.of(ENCODER):
            posterior = vae_encode(images)
        if images.requires_grad:
            posterior.latent_dist.mean.register_hook(turns_to(BACKWARD_ENCODER))
            images.register_hook(turns_to(BACKWARD))
        return posterior

    def turns_to(part: str) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            launches.turn_to(part)

        return hook

    state_guide, vae_encode = state.guide, vae.encode
    with ExitStack() as stack:
        for owner, name, replaced in (
            (step, "training_step", of(REST, step.training_step)),
            (step, "sample", of(CAMERAS, step.sample)),
            (step, "backward", of(CAMERAS, step.backward)),
            (step, "training_views", of(RENDER, step.training_views)),
            (state, "guide", guide),
            (vae, "encode", encode),
            (vae, "decode", of(DECODER, vae.decode)),
            (network, "forward", of(UNET, network.forward)),
            (torch.autograd, "backward", of(BACKWARD, torch.autograd.backward)),
            (state.optimizer, "step", of(OPTIMIZER, state.optimizer.step)),
            (step, "what_was_seen", of(DENSITY, step.what_was_seen)),
            (DensificationStats, "if_true", of(DENSITY, DensificationStats.if_true)),
            (state.optimizer.stats, "add", of(DENSITY, state.optimizer.stats.add)),
        ):
            stack.enter_context(patch.object(owner, name, replaced))
        yield
