"""Guidance: from rendered views and a prompt to a loss. `GUIDANCES` is the table name -> class."""

from __future__ import annotations

import torch

from config.schema import Config
from guidance.base import Guidance, GuidanceOutput, Prior
from guidance.prior import PriorError, StableDiffusionPrior
from guidance.prompts import Conditioning, PromptEmbeddings, view_weights
from guidance.sctd import SCTD
from guidance.sds import SDS

__all__ = [
    "GUIDANCES",
    "SCTD",
    "SDS",
    "Conditioning",
    "Guidance",
    "GuidanceOutput",
    "Prior",
    "PriorError",
    "PromptEmbeddings",
    "StableDiffusionPrior",
    "build",
    "embed_prompts",
    "load_prior",
    "view_weights",
]


GUIDANCES: dict[str, type[SDS] | type[SCTD]] = {"sctd": SCTD, "sds": SDS}
"""`--guidance_type` -> class: one small file each, with the contract `Guidance` and a `from_config`."""


def build(config: Config, prior: Prior) -> Guidance:
    """The guidance that `config.guidance_type` names.

    Raises: ValueError naming the ones there are.
    """
    if config.guidance_type not in GUIDANCES:
        raise ValueError(
            f"guidance_type '{config.guidance_type}' is not available; choose one of {', '.join(GUIDANCES)}"
        )
    return GUIDANCES[config.guidance_type].from_config(config, prior)


def load_prior(config: Config, device: torch.device) -> StableDiffusionPrior:
    """The diffusion model that `hf_key` or else `model_key` names.

    Raises: PriorError.
    """
    params = config.guidance
    return StableDiffusionPrior.load(params.hf_key or params.model_key, device, fp16=params.fp16)


def embed_prompts(config: Config, prior: StableDiffusionPrior) -> PromptEmbeddings:
    """The embeddings of the run's prompt, negative prompt and inverse text."""
    params = config.guidance
    return PromptEmbeddings(
        prior,
        params.text,
        negative=params.negative,
        inverse=params.inverse_text,
        angle_overhead=config.camera.angle_overhead,
    )
