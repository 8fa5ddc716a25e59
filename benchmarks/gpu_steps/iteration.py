"""Step d: the training iteration on Stable Diffusion 2.1-base's architecture, SCTD first.

The networks are compiled while other steps run; what is timed waits until the machine is quiet.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache, partial
from itertools import product
from typing import Any

import torch

import iteration as benchmark
from config import Config
from guidance import METHODS
from guidance.prior import LatentPrior
from hardware import hardware
from iterations import measure
from iterations.attention import attention_backends
from iterations.kernels import profiled
from iterations.work import Work, matrix_peak, work_of
from memory import weights_of
from training.memory_plan import MemoryPlan, needed_bytes

from .step import Context, main

SCTD, CFG, PERP_NEG = "sctd", "CFG", "Perp-Neg"
OURS, RELEASED = measure.OURS, measure.RELEASED
KEY_ROWS = 6
"""Number of rows that come before what may slow the others."""
PLAIN = (measure.ONE_BY_ONE, measure.VIEW_BY_VIEW)


class Bench:
    """The prior and the settings that all measurements share."""

    def __init__(self, context: Context) -> None:
        small = ["--model", "toybox", "--count", "300", "--views", "2", "--blocks", "1", "--block", "1"]
        large = ["--model", "sd21", "--views", "4", "--blocks", "5", "--block", "4"]
        self.arguments = benchmark.parse(
            [*(small if context.rehearsal else large), "--device", context.device]
        )
        self.device = torch.device(context.device)
        self.prior: LatentPrior = benchmark.prior_of(self.arguments, self.device)
        self.work: Work = work_of(self.prior)
        [self.views] = self.arguments.views

    def config(self, method: str, prompting: str, compile: str = "dynamic") -> Config:
        """Make the settings that train.py would have; in a rehearsal nothing is compiled."""
        config = benchmark.config_of(self.arguments, method, prompting, self.views)
        return measure.changed(config, compile="false" if self.device.type == "cpu" else compile)

    def row(self, method: str, prompting: str, way: str, compile: str) -> dict[str, Any]:
        """The figures of one way. Raises RuntimeError with the reason where there are none."""
        job = measure.Job(self.arguments.blocks, self.arguments.block)
        config = self.config(method, prompting, compile)
        found = measure.measure(config, self.prior, way, job, self.work)
        if found.why is not None:
            raise RuntimeError(found.why)
        return asdict(found)

    def peak(self) -> float:
        """TFLOP/s of a large matrix product, in the networks' precision."""
        return matrix_peak(self.device, self.prior.network.dtype)

    def compile(self, compile: str) -> dict[str, Any]:
        """Compile what SCTD needs, and keep what is logged of it."""
        began = time.perf_counter()
        with said_by("guidance") as lines:
            measure.assembled(self.config(SCTD, CFG, compile), self.prior, OURS)
        return {"seconds": time.perf_counter() - began, "said": lines}

    def profile(self) -> dict[str, Any]:
        """Profile one of SCTD's iterations, in the middle of a run."""
        state = measure.assembled(self.config(SCTD, CFG), self.prior, OURS)
        step = self.arguments.iterations // 2
        found = profiled(lambda: measure.iterate(state, step), self.device)
        waits = measure.host_waits(lambda: measure.iterate(state, step), self.device)
        return {**asdict(found), "waits": waits}

    def memory(self) -> dict[str, float]:
        """GB that the memory plan computes for SCTD with all views at once, weights included."""
        config = self.config(SCTD, CFG)
        needed = needed_bytes(config, self.prior, MemoryPlan(self.views, encode_singly=False))
        return {"needed": needed / 1e9, "weights": weights_of(self.prior) / 1e9}


@contextmanager
def said_by(name: str) -> Iterator[list[str]]:
    """Collect what a package logs meanwhile."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def ways() -> Iterator[tuple[str, str, str]]:
    """Method, prompting and way of each row, in order of worth."""
    yield from ((SCTD, CFG, OURS), (SCTD, CFG, RELEASED), (SCTD, PERP_NEG, OURS))
    yield from ((method, CFG, OURS) for method in METHODS if method != SCTD)
    yield from ((SCTD, CFG, way) for way in PLAIN)
    yield from ((SCTD, PERP_NEG, way) for way in (RELEASED, *PLAIN))
    yield from ((method, CFG, way) for method, way in product(METHODS, PLAIN) if method != SCTD)


def run(context: Context) -> None:
    records, bench = context.records, cache(partial(Bench, context))
    # One graph for all batch sizes, hence for all methods: the others take a graph, and a minute, for each size.
    records.once("compiled, dynamic", partial(compiled, bench, "dynamic"))
    context.wait_for_turn()
    records.once("hardware", lambda: hardware(context.device, torch.get_num_threads()))
    records.once("matrix peak", lambda: bench().peak())
    records.once("memory", lambda: bench().memory())
    for index, way in enumerate(ways()):
        records.once(", ".join(way), partial(row, bench, *way, "dynamic"))
        if index == KEY_ROWS:
            records.once("attention", lambda: attention_backends(bench().prior))
            # Here, for what has been profiled may be slower in the same process afterwards.
            records.once("profile", lambda: bench().profile())
    records.once("compiled, static", partial(compiled, bench, "static"))
    records.once(f"{SCTD}, {CFG}, {OURS} (static)", partial(row, bench, SCTD, CFG, OURS, "static"))


def row(bench: Callable[[], Bench], method: str, prompting: str, way: str, compile: str) -> dict[str, Any]:
    return bench().row(method, prompting, way, compile)


def compiled(bench: Callable[[], Bench], compile: str) -> dict[str, Any]:
    return bench().compile(compile)


if __name__ == "__main__":
    main(run)
