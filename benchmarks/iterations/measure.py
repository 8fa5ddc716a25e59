"""Time one configuration in one way: block by block, spread over a whole run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import guidance
import training.step
from config import Config
from guidance.prior import LatentPrior
from rasterizers.measure import MIB, PeakMemory
from training.batch_sizes import batch_shares
from training.faults import settle
from training.state import Training, assemble

from .clock import Clock
from .watch import WHOLE, milliseconds, views_rendered_one_by_one, watched
from .work import Work, tera

OURS, ONE_BY_ONE, VIEW_BY_VIEW, RELEASED = WAYS = (
    "ours",
    "plain, rendered one by one",
    "plain, view by view",
    "as released",
)
"""Ways to run an iteration.

ours: as train.py does it. Plain: the same networks in the same precision, but neither compiled nor fitted to
the memory. "Rendered one by one" makes a rasterizer call for every view and the guidance of all views at
once, as in the originals' loops. "View by view" does the whole iteration so, as theirs is with one view in a
batch. As released: SegmentDreamer's loop in shape, rendered one by one with a wait for each view's count, its
code's 5 evaluations per view, cuDNN's deterministic algorithms, and a look at the loss in every iteration.
"""


WAIT = "called a synchronizing CUDA operation"
"""Words of torch's warning about each wait; the first one of a process only explains the mode."""


def ways_of(method: str) -> tuple[str, ...]:
    """List the ways that a method has: only SCTD's released code computes something else."""
    return WAYS if method == "sctd" else WAYS[:-1]


@dataclass(frozen=True)
class Row:
    """Figures of the median block, per iteration.

    ms: of the whole; parts: of each of watch.PARTS, which add up to it; calls: of the U-Net, latents: that
    went through it in all, per view as in the run's log: evaluations. TFLOP/s of the U-Net, the encoder and
    its way back (the penalties count as part of that); memory: GB of tensors at most, weights included;
    reserved: GB that torch has taken of the device, with what recorded graphs keep, None on the host; waits:
    of the host for the device, None on the host. why: the reason where there are no figures.
    """

    guidance: str
    prompting: str
    views: int
    way: str
    at_once: str = ""
    ms: float | None = None
    parts: dict[str, float] = field(default_factory=dict)
    calls: float = 0.0
    latents: float = 0.0
    evaluations: float = 0.0
    unet_tflops: float = 0.0
    encode_tflops: float = 0.0
    encode_backward_tflops: float = 0.0
    memory: float | None = None
    reserved: float | None = None
    waits: int | None = None
    why: str | None = None

    def hours(self, iterations: int) -> float | None:
        """Hours of a run of so many iterations."""
        return None if self.ms is None else self.ms * iterations / 3.6e6


@dataclass(frozen=True)
class Job:
    """Plan of the timing: so many blocks (an odd number) of so many iterations, spread evenly over the run."""

    blocks: int
    iterations: int

    def steps(self, last: int) -> list[list[int]]:
        """Steps of each block. Schedules that change over the run's `last` iterations weigh the same in all
        of them.
        """
        total = self.blocks * self.iterations
        spread = [1 + round((k + 0.5) * (last - 1) / total) for k in range(total)]
        return [spread[block :: self.blocks] for block in range(self.blocks)]


def measure(config: Config, prior: LatentPrior, way: str, job: Job, work: Work) -> Row:
    """The row of this way, whatever happens."""
    params = config.guidance
    row = Row(config.guidance_type, "Perp-Neg" if params.perpneg else "CFG", params.C_batch_size, way)
    try:
        return Row(**{**asdict(row), **figures(config, prior, way, job, work)})
    except torch.OutOfMemoryError:
        return Row(**{**asdict(row), "why": "out of memory"})
    except FloatingPointError as error:
        return Row(**{**asdict(row), "why": str(error)})


def figures(config: Config, prior: LatentPrior, way: str, job: Job, work: Work) -> dict[str, object]:
    """Figures of the measurement, by their names in Row."""
    state = assembled(config, prior, way)
    clock = Clock(prior.device)
    found = []
    with way_of(way), watched(state, clock):
        warm_up(state)
        memory = PeakMemory(prior.device.type)
        for steps in job.steps(config.optimization.iterations):
            clock.spans.clear()
            numbers = [iterate(state, step, look=way == RELEASED) for step in steps]
            evaluations = [float(each["guidance/unet_evals_per_view"]) for each in numbers]
            clock.wait()
            settle(state)
            each = len(steps)
            times = {name: ms / each for name, ms in milliseconds(clock.spans).items()}
            asked, encoded = (
                [span.rows for span in clock.spans if span.name == name] for name in ("U-Net", "encode")
            )
            found.append((times, evaluations, len(asked) / each, sum(asked) / each, sum(encoded) / each))
        held = memory.peak()
        last = config.optimization.iterations
        waits = host_waits(lambda: iterate(state, last, look=way == RELEASED), prior.device)
    found.sort(key=lambda block: block[0][WHOLE])
    times, evaluations, calls, latents, images = found[len(found) // 2]
    whole = times.pop(WHOLE)
    at_once = state.counts.views_at_once or config.guidance.C_batch_size
    return {
        "at_once": f"{at_once}{', encoded singly' if state.counts.encode_singly else ''}",
        "ms": whole,
        "parts": times,
        "calls": calls,
        "latents": latents,
        "evaluations": sum(evaluations) / len(evaluations),
        "unet_tflops": tera(latents * work.unet, times["U-Net"]),
        "encode_tflops": tera(images * work.encode, times["encode"]),
        "encode_backward_tflops": tera(images * work.encode_backward, times["backward: autoencoder"]),
        "memory": None if held is None or memory.before is None else (memory.before + held * MIB) / 1e9,
        "reserved": reserved_memory(prior.device),
        "waits": waits,
    }


def warm_up(state: Training) -> None:
    """Run two iterations, after the U-Net has seen every batch size of the run: each has algorithms to be found."""
    mine = range(state.config.guidance.C_batch_size)
    at_once = state.counts.views_at_once or len(mine)
    prior = state.prior
    for size in batch_shares(state.config, state.prior, mine, at_once):
        z = torch.zeros(size, *prior.latents, device=state.device)
        with torch.no_grad():
            prior.predict(z, torch.zeros(size, dtype=torch.long), prior.whole_blank(size))
    for step in (1, 2):
        iterate(state, step)


def assembled(config: Config, prior: LatentPrior, way: str) -> Training:
    """A run at its start, whose prior is this one, or for the other ways its networks uncompiled."""
    if way != OURS:
        variant = "released" if way == RELEASED else config.guidance.sctd_variant
        prior, config = prior.uncompiled(), changed(config, compile="false", sctd_variant=variant)
    with (
        patch.object(guidance.prior, "load_prior", lambda config, device: prior),
        patch.object(prior, "free_text_encoder"),
    ):
        state = assemble(config)
    if way != OURS:
        state.counts.views_at_once = 1 if way == VIEW_BY_VIEW else None
        state.counts.encode_singly = prior.encode_singly = False
    return state


def changed(config: Config, **keys: Any) -> Config:
    return config.model_copy(update={"guidance": config.guidance.model_copy(update=keys)})


@contextmanager
def way_of(way: str) -> Iterator[None]:
    """Set how the views are rendered, and which algorithms cuDNN may take."""
    with ExitStack() as stack:
        if way in (ONE_BY_ONE, RELEASED):
            stack.enter_context(views_rendered_one_by_one(waiting=way == RELEASED))
        if way == RELEASED:
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True))
        yield


def iterate(state: Training, step: int, *, look: bool = False) -> dict[str, float | Tensor]:
    """The numbers of an iteration, before the look at what it found that the loop takes every few of them.

    look: wait for the loss, as a progress bar that shows it does.
    """
    numbers = training.step.training_step(state, step).numbers
    if look:
        float(numbers["loss/guidance"])
    return numbers


def reserved_memory(device: torch.device) -> float | None:
    """GB at most since PeakMemory was made."""
    return torch.cuda.max_memory_reserved(device) / 1e9 if device.type == "cuda" else None


def host_waits(run: Callable[[], object], device: torch.device) -> int | None:
    """Count how often a call makes the host wait for a CUDA device; None elsewhere, where nothing reports it."""
    if device.type != "cuda":
        return None
    with warnings.catch_warnings(record=True) as said, _told_of_waits():
        warnings.simplefilter("always")
        run()
    return sum(WAIT in str(warning.message) for warning in said)


@contextmanager
def _told_of_waits() -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
