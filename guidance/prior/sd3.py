"""Stable Diffusion 3 and 3.5: a transformer of a flow under two CLIPs, T5 and a pooled vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from guidance.condition import Condition
from guidance.prior.pipeline_prior import PipelinePrior


class StableDiffusion3(PipelinePrior):
    """A flow in 16 channels, whose autoencoder has a shift; zeros stand for a T5 that is left out."""

    pipeline, taesd = "StableDiffusion3Pipeline", "madebyollin/taesd3"

    @staticmethod
    def embed_with(pipeline: Any, texts: Sequence[str], image_size: int) -> Condition:
        """Embed P texts, those of the CLIPs before T5's."""
        text, _, pooled, _ = pipeline.encode_prompt(
            [*texts], None, None, device=pipeline.device, do_classifier_free_guidance=False
        )
        return Condition({"text": text.float(), "pooled": pooled.float()})

    def answer(self, z: Tensor, told: Tensor, *parts: Tensor) -> Tensor:
        """Return the velocity [B, 16, h, w] under texts and pooled vectors."""
        text, pooled = parts
        found: Tensor = self.network(z, text, pooled, told).sample
        return found
