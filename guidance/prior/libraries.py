"""Output and errors of diffusers and transformers, kept to what helps a user."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


def in_short(error: Exception) -> str:
    """Message of a library's error, without line breaks, as part of a sentence."""
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence diffusers and transformers, which warn of what is meant here, such as a pipeline without a safety
    checker."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Hide progress bars: transformers draws one for every file it reads, diffusers for the parts of a pipeline."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    drawn = [each for each in (diffusers_logging, transformers_logging) if each.is_progress_bar_enabled()]
    for each in drawn:
        each.disable_progress_bar()
    try:
        yield
    finally:
        for each in drawn:
            each.enable_progress_bar()
