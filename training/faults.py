"""Numbers that are not finite: which step is left out, and when a run gives up."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from scene.optimizer import Update
from training.state import Counts

PATIENCE = 10
"""So many steps left out in a row end a run."""

logger = logging.getLogger(__name__)


def judge_update(update: Update, counts: Counts, step: int, times: Mapping[str, float]) -> bool:
    """Whether iteration `step`'s update was made; if not, it is counted and named, with the timesteps of its guidance.

    Raises FloatingPointError, one sentence, for the tenth one in a row and for parameters that are not finite.
    """
    if update.bad_parameters:
        raise FloatingPointError(
            f"Parameters of {', '.join(update.bad_parameters)} are not finite after iteration {step - 1}: lower their "
            "learning rates, and go on from the last checkpoint with --resume and --force."
        )
    if not update.bad_gradients:
        counts.bad_steps_in_a_row = 0
        return True
    counts.bad_steps += 1
    counts.bad_steps_in_a_row += 1
    mean_times = ", ".join(f"mean {name} {value:.0f}" for name, value in times.items())
    what = (
        f"The gradient of {', '.join(update.bad_gradients)} is not finite at iteration {step} ({mean_times})"
    )
    if counts.bad_steps_in_a_row < PATIENCE:
        logger.warning("%s: left out.", what)
        return False
    # Whoever goes on from here with other settings gets as many again.
    counts.bad_steps_in_a_row = 0
    raise FloatingPointError(
        f"{what}, as in the {PATIENCE - 1} iterations before it; a lower guidance_scale or learning rate may help, and "
        "--detect_anomaly names the operation that made it."
    )
