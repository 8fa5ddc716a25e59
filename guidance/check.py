"""A check of a cheaper gradient: now and then it is compared with the papers' own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from guidance.contract import GuidanceOutput
from guidance.guide import Guidance
from guidance.prompts import Conditioning


class Checked:
    """Guidance that every `interval` iterations asks `exact` too, with the same views, times and noise.

    The answer is that of `guide` all the same. Its diagnostics then have "cosine_to_exact", that of the angle between both
    gradients in the images, and the U-Net evaluations of both.
    """

    def __init__(self, guide: Guidance, exact: Guidance, interval: int) -> None:
        self.guide, self.exact, self.interval = guide, exact, interval

    def __call__(
        self,
        images: Tensor,
        conditioning: Conditioning,
        step: int,
        rngs: Sequence[torch.Generator],
        *,
        colors: Tensor | None = None,
    ) -> GuidanceOutput:
        """Guide images as `Guidance` does."""
        if (step + 1) % self.interval:
            return self.guide(images, conditioning, step, rngs, colors=colors)
        # The exact one first: no graph of its own is left when the other's is made.
        leaf = images.detach().requires_grad_()
        apart = None if colors is images else colors
        exact = self.exact(leaf, conditioning, step, [_copy(rng) for rng in rngs], colors=apart)
        [wanted] = torch.autograd.grad(exact.loss, leaf)
        output = self.guide(images, conditioning, step, rngs, colors=colors)
        [found] = torch.autograd.grad(output.loss, images, retain_graph=True)
        cosine = torch.nn.functional.cosine_similarity(found.flatten(), wanted.flatten(), dim=0)
        counts = [float(each.diagnostics["unet_evals_per_view"]) for each in (output, exact)]
        measured = {"unet_evals_per_view": sum(counts), "cosine_to_exact": cosine}
        return replace(output, diagnostics={**output.diagnostics, **measured})


def _copy(rng: torch.Generator) -> torch.Generator:
    copy = torch.Generator(rng.device)
    copy.set_state(rng.get_state())
    return copy
