"""The two encoders of a run: the small one takes the first iterations, the prior's autoencoder those that are left."""

from __future__ import annotations

import logging

from config import Config
from training.faults import settle
from training.state import Training

logger = logging.getLogger(__name__)


def encoders_in_turn(config: Config) -> list[str]:
    """Describe in one line which encoder takes which iterations; none if it is the autoencoder throughout."""
    small, last = config.small_encoder_iterations, config.optimization.iterations
    if small == 0:
        return []
    rest = ", the autoencoder the rest" if small < last else ""
    return [f"The small encoder takes the first {small} of {last} iterations{rest}"]


def change_encoder(state: Training, step: int) -> None:
    """Have the network encode whose turn it is in iteration `step`, and log when it is another than before.

    What the one before did wrong is settled while it is known which one that was. Raises FloatingPointError as
    `settle` does.
    """
    turn = state.guided.encodes_with(step)
    if turn != state.prior.encodes_with:
        settle(state)
        state.prior.encodes_with = turn
        logger.info(
            "Iteration %d: the autoencoder encodes from here on, in place of the small encoder.", step
        )
