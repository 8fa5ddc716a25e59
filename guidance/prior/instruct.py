"""InstructPix2Pix (Brooks et al., 2023): Stable Diffusion that is shown an original, and told how it is to be changed."""

from __future__ import annotations

import torch
from torch import Tensor

from guidance.condition import ORIGINAL, Condition
from guidance.prior.autoencoders import unscaled
from guidance.prior.stable_diffusion import StableDiffusionPrior


class InstructPix2Pix(StableDiffusionPrior):
    """A U-Net of 8 channels under one CLIP: the latents, and behind them those of the original.

    It has two guidances, of which `Denoiser` makes one: its prompt is an instruction, such as "make it of bronze".
    """

    edits = True

    def encode_original(self, images: Tensor) -> Tensor:
        """Encode originals [V, 3, H, W] in [0, 1] as the U-Net is shown them: [V, C, h, w] in the autoencoder's own scale."""
        with torch.no_grad():
            return unscaled(self.encode(images), self.vae.config)

    def answer(self, z: Tensor, told: Tensor, *parts: Tensor) -> Tensor:
        """Return what the U-Net answers [B, C, h, w]; the parts are those of Stable Diffusion, and originals [B, C, h, w]."""
        *others, original = parts
        return super().answer(torch.cat([z, original], dim=1), told, *others)

    def whole_blank(self, rows: int) -> Condition:
        """Make all that the network is told, without a meaning."""
        original = torch.zeros(rows, *self.latents, device=self.device)
        return super().whole_blank(rows).with_part(ORIGINAL, original)
