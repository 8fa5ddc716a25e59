"""Families of priors by the pipeline that model_index.json names."""

from __future__ import annotations

from guidance.prior.pipeline_prior import PipelinePrior
from guidance.prior.sana import Sana
from guidance.prior.sd3 import StableDiffusion3
from guidance.prior.sdxl import StableDiffusionXL
from guidance.prior.z_image import ZImage

FAMILIES: dict[str, type[PipelinePrior]] = {
    family.pipeline: family for family in (StableDiffusionXL, StableDiffusion3, Sana, ZImage)
}
"""`_class_name` -> adapter. Stable Diffusion 1 and 2, which have readers of their own, are not among them."""
