"""The iterations of a run, one after the other, in every process that works on it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from tqdm import tqdm

from scene.densify import grows
from training.encoders import change_encoder, encoders_in_turn
from training.faults import settle
from training.priors import change_prior, priors_in_turn
from training.state import Training
from training.step import Iteration, training_step
from utils.interruption import Interruption

LOG_INTERVAL = 10

logger = logging.getLogger(__name__)


def logs(step: int, iterations: int) -> bool:
    """Return whether the numbers of iteration `step` are looked at, for which the device is waited for."""
    return step in (1, iterations) or step % LOG_INTERVAL == 0


def iterations(state: Training, interruption: Interruption) -> Iterator[Iteration]:
    """Iterations that are left. They end early, with all numbers looked at, when a process gets a signal: alone, after the very
    iteration, and among others after the next one whose numbers are looked at.

    Raises FloatingPointError as `settle` does, RanksDiffer, and torch.OutOfMemoryError.
    """
    counts, ranks, last = state.counts, state.ranks, state.config.optimization.iterations
    for sentence in priors_in_turn(state.config):
        logger.info("%s.", sentence)
    if counts.step < state.config.small_encoder_iterations:
        logger.info("%s.", *encoders_in_turn(state.config))
    began, worked = time.perf_counter(), time.process_time()
    for step in range(counts.step + 1, last + 1):
        change_prior(state, step)
        change_encoder(state, step)
        state.whole = False
        iteration = training_step(state, step)
        now, work = time.perf_counter(), time.process_time()
        counts.step, counts.seconds, began = step, counts.seconds + now - began, now
        counts.core_seconds, worked = counts.core_seconds + work - worked, work
        state.whole = True
        if logs(step, last):
            settle(state)
            iteration = replace(iteration, numbers=of_all(iteration.numbers, state))
        if step == last or grows(state.config.optimization, step):
            ranks.check_same(list(state.gaussians.raw().values()), "The Gaussians")
        yield iteration
        if (ranks.count == 1 or logs(step, last)) and step < last:
            asked = ranks.greatest(interruption.signal or 0, state.device)
            # Assigned only then: a signal may have come in the meantime.
            if asked:
                interruption.signal = asked
                settle(state)
                return


def progress(state: Training, interruption: Interruption) -> Iterator[Iteration]:
    """The iterations that are left, with a bar."""
    counts, total = state.counts, state.config.optimization.iterations
    with tqdm(
        iterations(state, interruption),
        "train",
        total,
        initial=counts.step,
        unit="it",
        disable=state.config.quiet,
        dynamic_ncols=True,
    ) as bar:
        for iteration in bar:
            bar.set_postfix(gaussians=len(state.gaussians), refresh=False)
            yield iteration


def of_all(numbers: dict[str, float | Tensor], state: Training) -> dict[str, float | Tensor]:
    """An iteration's numbers in all processes: of the parts of a loss the sum, of what the guidance says of views the mean;
    the Gaussians' gradients and the poses are the same in all
    of them."""
    ranks, views = state.ranks, state.config.guidance.C_batch_size
    if ranks.count == 1:
        return numbers
    mine = ranks.share(views, state.prior.views_per_set)
    weights = {"loss": 1.0, "guidance": len(mine) / views} | dict.fromkeys(
        ("grad_norm", "poses"), 1 / ranks.count
    )
    shared = torch.stack(
        [
            weights[name.split("/")[0]] * torch.as_tensor(value, dtype=torch.float32, device=state.device)
            for name, value in numbers.items()
        ]
    )
    ranks.sum_([shared])
    return dict(zip(numbers, shared.unbind()))
