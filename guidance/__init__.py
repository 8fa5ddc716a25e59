"""Guidance: from rendered views and a prompt to a loss. `GUIDANCES` is the table name -> class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from config.schema import Config
from guidance.base import Gradient, Guidance, GuidanceOutput, Method, Prior
from guidance.cds import CDS
from guidance.cfg import Denoiser
from guidance.gcs import GCS
from guidance.ism import ISM
from guidance.prior import Adaptations, PriorError, StableDiffusionPrior
from guidance.prompts import Conditioning, PerpNeg, PromptEmbeddings, TextEncoder, view_weights
from guidance.sctd import SCTD
from guidance.sctd_released import ReleasedSCTD
from guidance.sds import SDS
from utils.device import is_accelerator

__all__ = [
    "CDS",
    "GCS",
    "ISM",
    "METHODS",
    "SCTD",
    "SDS",
    "Conditioning",
    "Denoiser",
    "Gradient",
    "Guidance",
    "GuidanceOutput",
    "Method",
    "PerpNeg",
    "Prior",
    "PriorError",
    "PromptEmbeddings",
    "ReleasedSCTD",
    "StableDiffusionPrior",
    "build",
    "compile_networks",
    "embed_prompts",
    "load_prior",
    "view_weights",
]


def sctd(config: Config, denoiser: Denoiser) -> Method:
    """The variant that `sctd_variant` names."""
    return (ReleasedSCTD if config.guidance.sctd_variant == "released" else SCTD)(config, denoiser)


METHODS: dict[str, Callable[[Config, Denoiser], Method]] = {
    "sds": SDS,
    "ism": ISM,
    "cds": CDS,
    "gcs": GCS,
    "sctd": sctd,
}
"""`--guidance_type` -> what makes the method: one small file each."""


def build(config: Config, prior: Prior) -> Guidance:
    """The guidance that `config.guidance_type` names.

    Raises: ValueError if its settings are impossible, or naming the methods that there are.
    """
    if config.guidance_type not in METHODS:
        raise ValueError(
            f"guidance_type '{config.guidance_type}' is not available; choose one of {', '.join(METHODS)}"
        )
    denoiser = Denoiser(prior)
    return Guidance(denoiser, METHODS[config.guidance_type](config, denoiser), config.guidance)


def load_prior(config: Config, device: torch.device) -> StableDiffusionPrior:
    """The diffusion model that `hf_key` or else `model_key` names.

    Raises: PriorError.
    """
    params = config.guidance
    model_key = params.hf_key or params.model_key
    if params.is_safe_tensor and not Path(model_key).expanduser().is_file():
        raise PriorError(f"is_safe_tensor is true, but model_key '{model_key}' is no file.")
    return StableDiffusionPrior.load(
        model_key,
        device,
        fp16=params.fp16,
        base_model_key=params.base_model_key,
        adaptations=Adaptations(
            lora=params.LoRA_path,
            lora_scale=params.LoRA_scale,
            words=params.textual_inversion_path,
            clip_skip=params.clip_skip or 0,
        ),
    )


def compile_networks(
    config: Config,
    prior: StableDiffusionPrior,
    views: int,
    shares: Callable[[], Mapping[int, float]],
    needed: Callable[[], int],
) -> None:
    """Compile the prior for `views` at a time as `compile` has it.

    Where it leaves the choice, nothing is compiled on the host, nor for a run that is to be `deterministic`: torch may
    take other kernels each time.

    Args:
        shares: counts how often the U-Net is asked for a batch of each size.
        needed: counts the bytes that the rest of an iteration takes.
    """
    how = config.guidance.compile
    if how == "auto" and (config.deterministic or not is_accelerator(prior.device)):
        how = "false"
    if how != "false":
        prior.compile(how, views, shares(), needed() if how == "auto" else 0)


def embed_prompts(config: Config, prior: TextEncoder) -> PromptEmbeddings:
    """The embeddings of the run's prompt, negative prompt and inverse text."""
    params = config.guidance
    return PromptEmbeddings(
        prior,
        params.text,
        negative=params.negative,
        inverse=params.inverse_text,
        angle_overhead=config.camera.angle_overhead,
        perp_neg=PerpNeg(params.negative_w, params.front_decay_factor, params.side_decay_factor)
        if params.perpneg
        else None,
    )
