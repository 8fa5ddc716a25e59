"""Z-Image: one stream of image and text through a transformer of a flow, under Qwen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from guidance.condition import Condition
from guidance.prior.embeddings import joined
from guidance.prior.pipeline_prior import PipelinePrior


class ZImage(PipelinePrior):
    """A flow in 16 channels; texts have lengths of their own, and the network's time and answer are turned round."""

    pipeline, taesd = "ZImagePipeline", "madebyollin/taef1"  # its autoencoder is FLUX.1's

    @staticmethod
    def embed_with(pipeline: Any, texts: Sequence[str], image_size: int) -> Condition:
        """Embed P texts, each of its own length, filled up to the longest."""
        found, _ = pipeline.encode_prompt([*texts], pipeline.device, do_classifier_free_guidance=False)
        return joined(
            [Condition({"text": text[None].float(), "length": torch.tensor([len(text)])}) for text in found]
        )

    @staticmethod
    def latents_of(config: Any) -> tuple[int, int]:
        """Return channels and side of the latents: of 1024 x 1024 pixels, as in its pipeline, for it names no size."""
        return int(config.in_channels), 128

    def answer(self, z: Tensor, told: Tensor, *parts: Tensor) -> Tensor:
        """Return the velocity [B, 16, h, w] under texts and their lengths, which are on the host."""
        text, length = parts
        texts = [row[:end] for row, end in zip(text, length.tolist())]
        backwards = 1 - told / self.schedule.num_timesteps
        found = self.network([*z.unsqueeze(2)], backwards, texts, return_dict=False)[0]
        return -torch.stack([*found]).squeeze(2)
