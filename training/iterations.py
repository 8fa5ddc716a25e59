"""The iterations of a run, one after the other, in every process that works on it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from scene.densify import grows
from training.faults import settle
from training.state import Training
from training.step import Iteration, training_step
from utils.interruption import Interruption
from utils.ranks import Ranks

LOG_INTERVAL = 10


def logs(step: int, iterations: int) -> bool:
    """Whether iteration `step` is one whose numbers are looked at, for which the device is waited for."""
    return step in (1, iterations) or step % LOG_INTERVAL == 0


def iterations(state: Training, interruption: Interruption) -> Iterator[Iteration]:
    """Those that are left. It ends early, with all numbers looked at, when a process is told to stop: alone, after the very
    iteration, and among others after the next one whose numbers are looked at.

    Raises FloatingPointError as `settle` does, RanksDiffer, and torch.OutOfMemoryError.
    """
    counts, ranks, last = state.counts, state.ranks, state.config.optimization.iterations
    start = time.perf_counter() - counts.seconds
    for step in range(counts.step + 1, last + 1):
        iteration = training_step(state, step)
        counts.step, counts.seconds = step, time.perf_counter() - start
        counts.evaluations += float(iteration.numbers["guidance/unet_evals_per_view"])
        if logs(step, last):
            settle(state)
            iteration = replace(iteration, numbers=of_all(iteration.numbers, ranks, state.device))
        if step == last or grows(state.config.optimization, step):
            ranks.check_same(list(state.gaussians.raw().values()), "The Gaussians")
        yield iteration
        if (ranks.count == 1 or logs(step, last)) and step < last:
            interruption.signal = ranks.greatest(interruption.signal or 0, state.device) or None
            if interruption.signal is not None:
                settle(state)
                return


def of_all(
    numbers: dict[str, float | Tensor], ranks: Ranks, device: torch.device
) -> dict[str, float | Tensor]:
    """An iteration's numbers in all processes: of the parts of a loss the sum, of the rest the mean."""
    if ranks.count == 1:
        return numbers
    shared = torch.stack(
        [torch.as_tensor(value, dtype=torch.float32).to(device) for value in numbers.values()]
    )
    ranks.sum_([shared])
    return {
        name: total if name.startswith("loss/") else total / ranks.count
        for name, total in zip(numbers, shared.unbind())
    }
