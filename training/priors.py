"""The priors of a run: a multi-view one that takes turns with the first, and one that finishes what they have shaped."""

from __future__ import annotations

import gc
import logging

from config import Config
from config.mixing import share_at
from training.faults import settle
from training.state import Guiding, Training, load_guides, rectifier_of
from utils.device import release_memory

logger = logging.getLogger(__name__)


def priors_in_turn(config: Config) -> list[str]:
    """Describe in one line which iterations the multi-view prior guides beside another; none if there is none."""
    count, last = config.multiview_iterations, config.mixed_iterations
    if count == 0:
        return []
    key, share = config.guidance.multiview_model_key, config.guidance.multiview_share
    return [
        f"{key} guides {count} of the first {last} iterations, {share_at(share, 0):.0%} of them at first and "
        f"{share_at(share, 1):.0%} at last"
    ]


def change_prior(state: Training, step: int) -> None:
    """Have the prior guide whose turn it is in iteration `step`.

    Of two that take turns both stay loaded, and nothing is waited for. Otherwise the one before is gone before the other is
    loaded, and what it did wrong is settled while it is known which one that was.

    Raises: FloatingPointError as `settle` does, PriorError and ValueError.
    """
    key, before = state.config.guided_at(step).guidance.model_key, state.guided.guidance.model_key
    if key == before:
        return
    if key in state.waiting:
        present = Guiding(state.guided, state.prior, state.prompts, state.guide)
        state.take(state.waiting.pop(key))
        state.waiting[before] = present
        return
    settle(state)
    logger.info("Iteration %d: %s guides from here on.", step, key)
    state.waiting.clear()
    del state.prior, state.prompts, state.guide
    state.rectifier = None
    gc.collect()
    release_memory(state.device)
    load_guides(state, step, rectifier_of(state.config, step, state.device))
