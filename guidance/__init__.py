"""Guidance: from rendered views and a prompt to a loss. `METHODS` is the table name -> method."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from config.fast import exact
from config.schema import Config
from guidance.cds import CDS
from guidance.cds_released import ReleasedCDS
from guidance.check import Checked
from guidance.condition import Condition
from guidance.contract import Gradient, GuidanceOutput, Imagined, Method, Prediction, Prior, SeenPoses
from guidance.denoiser import Denoiser
from guidance.gcs import GCS
from guidance.guide import Guidance
from guidance.ism import ISM
from guidance.poses import PoseRectifier
from guidance.prompts import (
    Conditioning,
    ImagePrompt,
    PerpNeg,
    PromptEmbeddings,
    TextEncoder,
    view_weights,
)
from guidance.sctd import SCTD
from guidance.sctd_released import ReleasedSCTD
from guidance.sds import SDS

__all__ = [
    "CDS",
    "GCS",
    "ISM",
    "METHODS",
    "SCTD",
    "SDS",
    "Checked",
    "Condition",
    "Conditioning",
    "Denoiser",
    "Gradient",
    "Guidance",
    "GuidanceOutput",
    "ImagePrompt",
    "Imagined",
    "Method",
    "PerpNeg",
    "PoseRectifier",
    "Prediction",
    "Prior",
    "PromptEmbeddings",
    "ReleasedCDS",
    "ReleasedSCTD",
    "SeenPoses",
    "build",
    "embed_prompts",
    "view_weights",
]


def cds(config: Config, denoiser: Denoiser) -> Method:
    """Make the variant that `cds_variant` names."""
    return (ReleasedCDS if config.guidance.cds_variant == "released" else CDS)(config, denoiser)


def sctd(config: Config, denoiser: Denoiser) -> Method:
    """Make the variant that `sctd_variant` names."""
    return (ReleasedSCTD if config.guidance.sctd_variant == "released" else SCTD)(config, denoiser)


METHODS: dict[str, Callable[[Config, Denoiser], Method]] = {
    "sds": SDS,
    "ism": ISM,
    "cds": cds,
    "gcs": GCS,
    "sctd": sctd,
}
"""`--guidance_type` -> maker of the method: one small file each."""


def build(
    config: Config, prior: Prior, exact_prior: Prior | None = None, rectifier: PoseRectifier | None = None
) -> Guidance | Checked:
    """Make the guidance that `config.guidance_type` names, checked every `check_interval` iterations.

    Args:
        exact_prior: the one that encodes as in the papers, for the check; the same prior, if none is given.
        rectifier: weighs the prior's poses; for a prior that sees each view alone.

    Raises: ValueError if its settings are impossible, or naming the methods that there are.
    """
    if config.guidance_type not in METHODS:
        raise ValueError(
            f"guidance_type '{config.guidance_type}' is not available; choose one of {', '.join(METHODS)}"
        )
    guide, interval, papers = (
        _unchecked(config, prior, rectifier),
        config.guidance.check_interval,
        exact(config),
    )
    if interval == 0 or papers == config:
        return guide
    return Checked(guide, _unchecked(papers, exact_prior or prior, rectifier), interval)


def _unchecked(config: Config, prior: Prior, rectifier: PoseRectifier | None) -> Guidance:
    denoiser = Denoiser(prior, config.guidance.image_guidance_scale)
    return Guidance(denoiser, METHODS[config.guidance_type](config, denoiser), config.guidance, rectifier)


def embed_prompts(
    config: Config,
    prior: TextEncoder,
    views_per_set: int = 1,
    image_tokens: tuple[Tensor, Tensor] | None = None,
    *,
    view_words: bool = True,
) -> PromptEmbeddings:
    """Embed the run's prompt, negative prompt and inverse text, for a prior that sees so many views together.

    image_tokens: of the run's image prompt, and of none, as the prior has them; None: without one.
    view_words: see `PromptEmbeddings`.
    """
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
        views_per_set=views_per_set,
        view_words=view_words,
        image=None
        if image_tokens is None
        else ImagePrompt(*image_tokens, params.image_prompt_scale, params.image_prompt_behind),
    )
