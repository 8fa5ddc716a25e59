"""The priors of a run in turn: a cheap one shapes the asset, and another one finishes it."""

from __future__ import annotations

import gc
import logging

from training.faults import settle
from training.state import Training, load_guide
from utils.device import release_memory

logger = logging.getLogger(__name__)


def change_prior(state: Training, step: int) -> None:
    """Have the prior guide whose turn it is in iteration `step`; the one before is gone before it is loaded.

    What the one before did wrong is settled while it is known which one that was.

    Raises: FloatingPointError as `settle` does, PriorError and ValueError.
    """
    guided = state.config.guided_at(step)
    if guided.guidance.model_key == state.guided.guidance.model_key:
        return
    settle(state)
    logger.info("Iteration %d: %s guides from here on.", step, guided.guidance.model_key)
    state.guided = guided
    del state.prior, state.prompts, state.guide
    gc.collect()
    release_memory(state.device)
    load_guide(state)
