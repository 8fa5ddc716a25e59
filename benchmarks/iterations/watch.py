"""Run the training step, unchanged, with a clock on its parts and with other ways of doing the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from functools import wraps
from typing import Any
from unittest.mock import patch

import torch

import gaussian_renderer
import training.step
from diff_gaussian_rasterization.batched import RasterOutput
from training.state import Training
from utils.moments import Moment

from .clock import Clock, Span

WHOLE = "iteration"
GUIDE = "guidance"
PARTS = (
    "render",
    "encode",
    "U-Net",
    "decode",
    "guidance's rest",
    "backward: autoencoder",
    "backward: rasterizer",
    "optimizer",
    "density control",
    "rest",
)
"""Parts of an iteration.

The penalties are part of the backward pass, whose first half ends when the gradient of the images is known;
"decode" is of pixel terms; "rest" is cameras, prompts and whatever nobody watches.
"""


@contextmanager
def watched(state: Training, clock: Clock) -> Iterator[None]:
    """Note spans of the calls of `training.step.training_step` with `state`: WHOLE, GUIDE, and those of PARTS
    that are not what others leave over.
    """
    step = training.step
    middle: list[Moment] = []

    def with_hook(training_views: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(training_views)
        def views(*args: Any, **kwargs: Any) -> Any:
            seen = training_views(*args, **kwargs)

            def detached() -> Any:
                leaves = type(seen).detached(seen)
                leaves.images.register_hook(lambda gradient: middle.append(clock.now()))
                return leaves

            # The class is frozen.
            object.__setattr__(seen, "detached", detached)
            return seen

        return views

    def halved(backward: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(backward)
        def part(*args: Any, **kwargs: Any) -> Any:
            middle.clear()
            result = backward(*args, **kwargs)
            end = clock.now()
            # Further steps along a gradient ask no guidance.
            start = middle[0] if middle else clock.last("render").end
            if middle:
                clock.spans.append(Span("backward: autoencoder", clock.last(GUIDE).end, start))
            clock.spans.append(Span("backward: rasterizer", start, end))
            return result

        return part

    prior = state.prior
    with ExitStack() as stack:
        for owner, name, replaced in (
            (step, "training_step", clock.timed(WHOLE, step.training_step)),
            (step, "training_views", with_hook(clock.timed("render", step.training_views))),
            (step, "backward", halved(step.backward)),
            (step, "refine", clock.timed("density control", step.refine)),
            (step, "what_was_seen", clock.timed("density control", step.what_was_seen)),
            (state.optimizer.stats, "add", clock.timed("density control", state.optimizer.stats.add)),
            (state.optimizer, "step", clock.timed("optimizer", state.optimizer.step)),
            (state, "guide", clock.timed(GUIDE, state.guide.__call__)),
            (prior, "encode", clock.timed("encode", prior.encode, len)),
            (prior, "decode", clock.timed("decode", prior.decode, len)),
            (prior, "predict", clock.timed("U-Net", prior.predict, lambda z, t, condition: len(z))),
        ):
            stack.enter_context(patch.object(owner, name, replaced))
        yield


def milliseconds(spans: list[Span]) -> dict[str, float]:
    """Sums of all spans, by name of PARTS, and WHOLE, which they add up to."""
    found = dict.fromkeys((*PARTS, GUIDE, WHOLE), 0.0)
    for span in spans:
        found[span.name] += span.ms
    found["guidance's rest"] = found.pop(GUIDE) - sum(found[name] for name in ("encode", "U-Net", "decode"))
    found["rest"] = found[WHOLE] - sum(found[name] for name in PARTS if name != "rest")
    return found


@contextmanager
def views_rendered_one_by_one(*, waiting: bool = False) -> Iterator[None]:
    """Make a rasterizer call for every view, as the originals' loops do. waiting: the host waits for a number
    of each view, as it does for a rasterizer that has to know how much room its lists need.
    """
    batched = gaussian_renderer.rasterize
    by_view = ("viewmats", "focals", "principals", "background")

    def rasterize(*args: Any, **kwargs: Any) -> RasterOutput:
        outs = []
        for view in range(len(kwargs["viewmats"])):
            of_view = {name: kwargs[name][view : view + 1] for name in by_view}
            outs.append(batched(*args, **{**kwargs, **of_view}))
            if waiting:
                int(outs[-1].counts[0, 0])
        stacked = {
            field.name: torch.cat([getattr(out, field.name) for out in outs])
            for field in fields(RasterOutput)
        }
        # The leaf that the loop reads the gradient of is this one, but the gradients arrive at those of the views.
        means2d = stacked["means2d"] = stacked["means2d"].detach().requires_grad_()
        means2d.grad = torch.zeros_like(means2d)
        for view, out in enumerate(outs):
            out.means2d.register_hook(means2d.grad[view : view + 1].copy_)
        return RasterOutput(**stacked)

    with patch.object(gaussian_renderer, "rasterize", rasterize):
        yield
