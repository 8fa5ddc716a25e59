"""Numbers that are not finite: which steps were left out, and when a run gives up."""

from __future__ import annotations

import logging
import math

import torch

from training.state import Counts, Noted, Training

PATIENCE = 10
"""Number of steps left out in a row that ends a run."""

PARTED = 0.3
"""Cosine below which a cheaper gradient is reported to have left the papers' own.

Two draws of times and noise at the same images have more of it (docs/fast.md), so below it is no matter of chance.
"""

logger = logging.getLogger(__name__)


def settle(state: Training) -> None:
    """Read what was noted of the iterations since the last time: the loop's one wait for the device.

    Steps left out are counted and named, and networks that have left the range of half precision are taken out
    of it. Raises FloatingPointError, one sentence, for the tenth one in a row and for parameters that are not
    finite; nothing noted is left then.
    """
    noted, state.noted = state.noted, []
    if not noted:
        return
    found = iter(torch.stack([number for each in noted for number in each.numbers()]).tolist())
    bad_gradients, bad_parameters = [], []
    for each in noted:
        bad_gradients.append([name for name in each.update.gradients if not math.isfinite(next(found))])
        bad_parameters.append([name for name in each.update.parameters if not math.isfinite(next(found))])
        state.counts.dimmed += int(next(found))
        state.counts.evaluations += next(found)
        if each.cosine is not None:
            compare(each.step, next(found))
    # Which of several priors that take turns made a number is not known here.
    mended = sum(prior.widen_overflowed() for prior in state.priors()) > 0
    if any(bad_gradients) and not mended:
        # All answers were in range: if half precision is to blame, it is on the way back through the encoder.
        mended = sum(prior.widen(prior.encodes_with) for prior in state.priors()) > 0
    for each, gradients, parameters in zip(noted, bad_gradients, bad_parameters):
        judge(each, gradients, parameters, state.counts, mended=mended)


def compare(step: int, cosine: float) -> None:
    """Warn if the gradient of iteration `step` and the papers' own have parted."""
    if cosine < PARTED:
        logger.warning(
            "At iteration %d the gradient and the papers' own have a cosine of %.2f only: --w_self 1, --t_threshold 150 "
            "and --encoder full bring it back.",
            step, cosine,
        )  # fmt: skip


def judge(
    noted: Noted, bad_gradients: list[str], bad_parameters: list[str], counts: Counts, *, mended: bool
) -> None:
    """Count and name iteration `noted.step`'s update if it was left out.

    Args:
        mended: true if its likely cause is gone.
    Raises: FloatingPointError as `settle` does.
    """
    if bad_parameters:
        raise FloatingPointError(
            f"Parameters of {', '.join(bad_parameters)} are not finite after iteration {noted.step - 1}: lower their "
            "learning rates, and go on from the last checkpoint with --resume and --force."
        )
    if not bad_gradients:
        counts.bad_steps_in_a_row = 0
        return
    counts.bad_steps += 1
    counts.bad_steps_in_a_row = 0 if mended else counts.bad_steps_in_a_row + 1
    mean_times = ", ".join(f"mean {name} {value:.0f}" for name, value in noted.times.items())
    what = (
        f"The gradient of {', '.join(bad_gradients)} is not finite at iteration {noted.step} ({mean_times})"
    )
    if counts.bad_steps_in_a_row < PATIENCE:
        logger.warning("%s: left out.", what)
        return
    # Whoever goes on from here with other settings gets as many again.
    counts.bad_steps_in_a_row = 0
    raise FloatingPointError(
        f"{what}, as in the {PATIENCE - 1} iterations before it; a lower guidance_scale or learning rate may help, and "
        "--detect_anomaly names the operation that made it."
    )
