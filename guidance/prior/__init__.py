"""Diffusion models that guide: `load_prior` finds the one that a configuration names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from config.guidance_params import TOYBOX, TOYBOX_IMAGE
from config.schema import Config
from guidance.prior.adaptations import Adaptations
from guidance.prior.controlnet import Controls, find_controls
from guidance.prior.families import FAMILIES
from guidance.prior.family import EDITS
from guidance.prior.image_prompt_files import ImagePromptFiles, find_image_prompt, text_width
from guidance.prior.instruct import InstructPix2Pix
from guidance.prior.latent_prior import LatentPrior
from guidance.prior.model_files import PriorError
from guidance.prior.mvdream import MVDream
from guidance.prior.mvdream_files import is_mvdream
from guidance.prior.pipeline_files import find_pipeline, pipeline_named
from guidance.prior.pipeline_prior import PipelinePrior, Wanted
from guidance.prior.pose_classifiers import load_rectifier
from guidance.prior.stable_diffusion import StableDiffusionPrior
from guidance.prompts import texts_of
from utils.device import is_accelerator

__all__ = [
    "Adaptations",
    "InstructPix2Pix",
    "LatentPrior",
    "MVDream",
    "PriorError",
    "StableDiffusionPrior",
    "class_of",
    "compile_networks",
    "controls_of",
    "image_prompt_of",
    "load_prior",
    "load_rectifier",
    "rectifies",
]


def class_of(config: Config) -> type[StableDiffusionPrior] | type[PipelinePrior]:
    """Return the class of the diffusion model that `hf_key` or else `model_key` names, by its list of parts or its names."""
    model_key = config.guidance.hf_key or config.guidance.model_key
    pipeline = pipeline_named(model_key)
    if is_mvdream(model_key, pipeline):
        return MVDream
    if pipeline.startswith(EDITS):
        return InstructPix2Pix
    return FAMILIES.get(pipeline, StableDiffusionPrior)


def rectifies(config: Config) -> bool:
    """Return whether a run weighs the poses of this prior: `rectify_poses`, for one that sees each view alone."""
    return config.guidance.rectify_poses > 0 and class_of(config).views_per_set == 1


def load_prior(config: Config, device: torch.device) -> LatentPrior:
    """Load the diffusion model that `hf_key` or else `model_key` names.

    Raises: PriorError.
    """
    params = config.guidance
    model_key = params.hf_key or params.model_key
    family = class_of(config)
    if issubclass(family, PipelinePrior):
        return family.load(
            find_pipeline(model_key, family.core, half=params.fp16 and is_accelerator(device)),
            device,
            replace(wanted_by(config), image_prompt=image_prompt_of(config, device)),
        )
    if params.prior_image_size is not None and params.refine_model_key is None:
        raise PriorError(
            f"prior_image_size is {params.prior_image_size}, but model_key '{model_key}' has a size of its own: leave it out."
        )
    return family.load(
        model_key,
        device,
        fp16=params.fp16,
        base_model_key=params.base_model_key,
        prediction_type=None if params.prediction_type == "auto" else params.prediction_type,
        adaptations=Adaptations(
            lora=params.LoRA_path,
            lora_scale=params.LoRA_scale,
            lora_partial=params.LoRA_partial,
            words=params.textual_inversion_path,
            clip_skip=params.clip_skip or 1,
            prompts=(params.text, params.negative, params.inverse_text),
        ),
        small_encoder=config.small_encoder_iterations > 0,
        small_encoder_key=params.small_encoder_key,
        controls=controls_of(config),
        image_prompt=image_prompt_of(config, device),
    )


def controls_of(config: Config) -> Controls | None:
    """Find the ControlNets that `controlnet_model_key` names, which are fetched if need be; None for none.

    Raises: PriorError.
    """
    params, acting = config.guidance, config.guidance.controlnets
    family = class_of(config)
    if acting and issubclass(family, PipelinePrior):
        wanted_by(config)
    if acting and family.edits:
        raise PriorError(
            f"controlnet_model_key is for priors of text alone, and model_key '{params.hf_key or params.model_key}' is shown an "
            "original already: leave it out."
        )
    keys, scales = [each.key for each in acting], [each.scale for each in acting]
    return find_controls(keys, scales, params.controlnet_t_range)


def image_prompt_of(config: Config, device: torch.device) -> ImagePromptFiles | None:
    """Find the files of the image prompt, which are fetched if need be; None for none.

    Raises: PriorError, also for a family without adapters.
    """
    params, family = config.guidance, class_of(config)
    if not params.has_image_prompt:
        return None
    assert params.image_prompt is not None
    model_key, half = params.hf_key or params.model_key, params.fp16 and is_accelerator(device)
    if not family.takes_image_prompt:
        raise PriorError(
            f"image_prompt is for Stable Diffusion 1, 2 and XL, and model_key '{model_key}' is of another family: leave it out."
        )
    if issubclass(family, PipelinePrior):
        settings = find_pipeline(model_key, family.core, half=half).path
    else:
        settings = family.find(model_key, params.base_model_key, half=half).settings
    adapter = params.image_prompt_model_key or (TOYBOX_IMAGE if model_key == TOYBOX else None)
    return find_image_prompt(params.image_prompt, adapter, text_width(settings))


def check_prior(config: Config, device: torch.device) -> None:
    """Check that the files of the prior that `model_key` names are there, which are fetched if need be.

    Raises: PriorError.
    """
    params = config.guidance
    half = params.fp16 and is_accelerator(device)
    family = class_of(config)
    if issubclass(family, PipelinePrior):
        folder = find_pipeline(params.model_key, family.core, half=half)
        family.sizes(folder, params.prior_image_size)
        family.small_encoder_of(folder, wanted_by(config))
    else:
        family.find(params.model_key, params.base_model_key, half=half)


def wanted_by(config: Config) -> Wanted:
    """Return what a run wants of a model in a pipeline.

    Raises: PriorError for what is only there for Stable Diffusion 1 and 2.
    """
    params = config.guidance
    given = {
        "textual_inversion_path": params.textual_inversion_path,
        "clip_skip": (params.clip_skip or 1) > 1,
        "base_model_key": params.base_model_key,
        "LoRA_partial": params.LoRA_partial,
        "controlnet_model_key": params.controlnet_model_key,
    }
    if wrong := [name for name, value in given.items() if value]:
        raise PriorError(
            f"{', '.join(wrong)} is for Stable Diffusion 1 and 2 alone, and model_key '{params.model_key}' is of another family: "
            "leave it out."
        )
    return Wanted(
        texts=texts_of(params.text, params.negative, params.inverse_text),
        half=params.fp16,
        image_size=params.prior_image_size,
        prediction_type=None if params.prediction_type == "auto" else params.prediction_type,
        embeddings=params.embeddings,
        lora=params.LoRA_path,
        lora_scale=params.LoRA_scale,
        small_encoder=config.small_encoder_iterations > 0,
        small_encoder_key=params.small_encoder_key,
    )


def compile_networks(
    config: Config,
    prior: LatentPrior,
    views: int,
    shares: Callable[[], Mapping[int, float]],
    needed: Callable[[], int],
) -> None:
    """Compile the prior for `views` at a time, in the way that `compile` names.

    "auto" compiles nothing on the host, nor for a run that is to be `deterministic`: torch may take other
    kernels each time.

    Args:
        shares: counts how often the U-Net gets a batch of each size.
        needed: counts the bytes that the rest of an iteration takes.
    """
    how = config.guidance.compile
    if how == "auto" and (config.deterministic or not is_accelerator(prior.device)):
        how = "false"
    if how != "false":
        encoders = dict.fromkeys(config.encodes_with(step) for step in (1, config.optimization.iterations))
        prior.compile(how, views, shares(), needed() if how == "auto" else 0, [*encoders])
