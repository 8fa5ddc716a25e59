"""Stable Diffusion XL: a U-Net under two CLIPs, their pooled vector, and the size that a picture had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from guidance.condition import Condition
from guidance.prior.image_prompt import with_image
from guidance.prior.pipeline_prior import PipelinePrior


class StableDiffusionXL(PipelinePrior):
    """Diffusion of eps or v in 4 channels; its U-Net runs in float16, its autoencoder, which overflows there, does not."""

    pipeline, core, half, patch = "StableDiffusionXLPipeline", "unet", torch.float16, 8
    taesd = "madebyollin/taesdxl"
    takes_image_prompt = True

    @staticmethod
    def embed_with(pipeline: Any, texts: Sequence[str], image_size: int) -> Condition:
        """Embed P texts; an empty one is zeros where the model was trained so."""
        text, _, pooled, _ = pipeline.encode_prompt(
            [*texts], device=pipeline.device, do_classifier_free_guidance=False
        )
        if pipeline.config.force_zeros_for_empty_prompt:
            there = torch.tensor([float(bool(each)) for each in texts]).to(text)
            text, pooled = text * there[:, None, None], pooled * there[:, None]
        # Original size, corner of the cut, and wanted size, each height and width.
        sizes = text.new_tensor([image_size, image_size, 0, 0, image_size, image_size])
        sizes = sizes.float().expand(len(texts), -1)
        return Condition({"text": text.float(), "pooled": pooled.float(), "sizes": sizes})

    def answer(self, z: Tensor, told: Tensor, *parts: Tensor) -> Tensor:
        """Return eps or v [B, 4, h, w] under texts, pooled vectors, sizes and an image prompt's tokens, where there is one."""
        text, pooled, sizes, *tokens = parts
        more = {"text_embeds": pooled, "time_ids": sizes}
        read = with_image(text, *tokens) if tokens else text
        found: Tensor = self.network(z, told, read, added_cond_kwargs=more).sample
        return found
