"""SANA: a linear transformer of a flow in the latents of DC-AE, 1/32 of an image's size, under Gemma."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from guidance.condition import Condition
from guidance.prior.embeddings import joined
from guidance.prior.pipeline_prior import PipelinePrior


class Sana(PipelinePrior):
    """A flow in 32 channels: 16 x 16 latents of 512 x 512 pixels."""

    pipeline, patch = "SanaPipeline", 1

    @staticmethod
    def embed_with(pipeline: Any, texts: Sequence[str], image_size: int) -> Condition:
        """Embed P texts, behind the pipeline's own instruction to Gemma unless they are empty, as it does."""
        instruction = signature(type(pipeline).__call__).parameters["complex_human_instruction"].default
        found = []
        for text in texts:
            embedded, mask, *_ = pipeline.encode_prompt(
                [text],
                do_classifier_free_guidance=False,
                device=pipeline.device,
                complex_human_instruction=instruction if text else None,
            )
            found.append(Condition({"text": embedded.float(), "mask": mask.bool()}))
        return joined(found)

    def answer(self, z: Tensor, told: Tensor, *parts: Tensor) -> Tensor:
        """Return the velocity [B, 32, h, w] under texts and their masks."""
        text, mask = parts
        config = self.network.config
        found: Tensor = self.network(
            z, text, told * config.timestep_scale, encoder_attention_mask=mask.to(z.dtype)
        ).sample
        return torch.narrow(found, 1, 0, z.shape[1])
