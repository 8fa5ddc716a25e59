"""Time peers on scenes, each in a process of its own or all in this one."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reasons import reason

from . import ours
from .peer import Images, Peer, Render
from .scene import Scene, make_scene, to_device

SETS = 3
"""Scenes that take turns, so that no cache holds the next one's numbers."""
WARM_UP = 0.5
"""Seconds of running before the first figure counts."""
PATIENCE = 10.0
"""Seconds after which MINIMUM repeats are enough."""
MINIMUM = 3
TOO_LONG = 60.0
"""Seconds after which the first step is the only one, although memory that is touched for the first time slows it."""
MIB = 2**20

Times = tuple[float | None, float | None, float | None, float | None]
"""Milliseconds of forward, backward, both, and of the host until it had launched both; what is not known is None."""
Reading = Callable[[], Times]
"""Function that returns the times of a step, which on a GPU are known later."""
Step = Callable[[], tuple[Reading, Images]]
"""Function that runs one forward and backward; the gradients are in the scene's leaves."""


@dataclass(frozen=True)
class Job:
    """Scene, and how to time it."""

    views: int
    size: int
    count: int
    footprint: float
    device: str
    threads: int
    repeats: int


@dataclass(frozen=True)
class Row:
    """Figures of one peer on one scene: medians in milliseconds, and numbers that show that it computed the
    same.

    host: until the host had launched forward and backward, on an accelerator. memory: peak above the inputs,
    in MiB. psnr: of rgb, in dB, against our portable CPU build. gradients: the largest difference from its
    gradients, among the parameters, as norm over norm. images: how many of rgb, depth and alpha it returned
    and was sent gradients of. why: the reason where there are no figures.
    """

    name: str
    version: str
    views: int
    size: int
    count: int
    forward: float | None = None
    backward: float | None = None
    total: float | None = None
    host: float | None = None
    memory: float | None = None
    psnr: float | None = None
    gradients: float | None = None
    images: int | None = None
    why: str | None = None


def too_large(peer: Peer, job: Job) -> str | None:
    """Return why this peer cannot be given this job, if so."""
    needed = peer.bytes_per_pixel * job.footprint * job.count * job.views
    if needed > 0.9 * (available := available_memory(job.device)):
        return f"needs about {needed / 2**30:.0f} GiB, {available / 2**30:.0f} are free"
    return None


def measure(peer: Peer, job: Job) -> Row:
    """The row of this peer in a process of its own, whatever happens to it: no failure spreads."""
    row = partial(Row, peer.name, peer.version, job.views, job.size, job.count)
    if why := too_large(peer, job):
        return row(why=why)
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(sender, peer, job))
    process.start()
    sender.close()
    try:
        found = receiver.recv()
    except EOFError:
        process.join()
        return row(why=f"its process ended with exit code {process.exitcode}")
    process.join()
    return row(why=found) if isinstance(found, str) else row(**found)


def _report(sender: Connection, peer: Peer, job: Job) -> None:
    """Send the figures, or the reason why there are none."""
    try:
        sender.send(figures(peer, job))
    except Exception as error:
        sender.send(reason(error))


def measure_here(peer: Peer, job: Job, case: Case) -> Row:
    """The row of this peer in this process, which imports nothing anew; a peer that crashes takes it along."""
    row = partial(Row, peer.name, peer.version, job.views, job.size, job.count)
    if why := too_large(peer, job):
        return row(why=why)
    try:
        return row(**figures(peer, job, case))
    except Exception as error:  # foreign packages raise whatever they like
        return row(why=reason(error))


class Case:
    """Scenes of a job, and what our portable CPU build makes of them, computed once for all peers."""

    def __init__(self, scenes: list[Scene]) -> None:
        self.scenes = scenes
        self._truths: dict[tuple[int, int], tuple[Images, list[Tensor]]] = {}

    @classmethod
    def of(cls, job: Job) -> Case:
        seeds = range(SETS)
        return cls(
            [make_scene(job.count, job.views, job.size, job.footprint, job.device, seed) for seed in seeds]
        )

    def truth(self, index: int, images: int) -> tuple[Images, list[Tensor]]:
        """The first `images` of rgb, depth and alpha of a scene, and the leaves' gradients, on the host."""
        if (index, images) not in self._truths:
            host = to_device(self.scenes[index], "cpu")
            shown = back(host, lambda: ours.prepare_level(host, "portable")()[:images])
            gradients = [leaf.grad for leaf in host.leaves if leaf.grad is not None]
            self._truths[index, images] = tuple(image.detach() for image in shown), gradients
        return self._truths[index, images]


def figures(peer: Peer, job: Job, case: Case | None = None) -> dict[str, Any]:
    """Figures of the measurement, by their names in Row. case: the job's, if others share it."""
    torch.set_num_threads(job.threads)
    case = case or Case.of(job)
    scenes = case.scenes
    renders = [peer.prepare(scene) for scene in scenes]
    memory = PeakMemory(job.device)
    step = step_cuda if job.device == "cuda" else step_cpu
    steps: list[Step] = []
    held = None
    for scene, render in zip(scenes, renders):
        steps.append(capture(scene, render) if peer.replayed else partial(step, scene, render))
        if peer.replayed and held is None:
            held = memory.peak()  # of the first one's tensors, which the others add theirs to
    (forward, backward, total, host), last, images = medians(steps, job.repeats)
    return {
        "forward": forward,
        "backward": backward,
        "total": total,
        "host": host,
        "memory": memory.peak() if held is None else held,
        **agreement(scenes[last], images, *case.truth(last, len(images))),
    }


def medians(steps: list[Step], repeats: int) -> tuple[Times, int, Images]:
    """Medians of `repeats` steps, in turns, after as many as warm up.

    They are fewer if they are slow, one if it takes TOO_LONG. Also returns which step was the last, and its
    images.
    """
    start = time.perf_counter()
    reading, images = steps[0]()
    readings, last = [reading], 0
    if time.perf_counter() - start < TOO_LONG:
        for step in steps[1:]:
            step()
        while time.perf_counter() - start < WARM_UP:
            steps[0]()
        readings, last, images = timed(steps, repeats)
    parts = zip(*(reading() for reading in readings))
    forward, backward, total, host = (None if None in part else statistics.median(part) for part in parts)
    return (forward, backward, total, host), last, images


def timed(steps: list[Step], repeats: int) -> tuple[list[Reading], int, Images]:
    """The readings of `repeats` steps, in turns, fewer if they are slow; which step was the last, and its images."""
    start = time.perf_counter()
    readings: list[Reading] = []
    while len(readings) < repeats and (len(readings) < MINIMUM or time.perf_counter() - start < PATIENCE):
        last = len(readings) % len(steps)
        reading, images = steps[last]()
        readings.append(reading)
    return readings, last, images


def forget(scene: Scene) -> None:
    """Drop the gradients, as an optimizer does between steps."""
    for leaf in scene.leaves:
        leaf.grad = None


def back(scene: Scene, render: Render) -> Images:
    """Run forward and backward."""
    images = render()
    torch.autograd.backward(images, scene.upstream[: len(images)])
    return images


def step_cpu(scene: Scene, render: Render) -> tuple[Reading, Images]:
    """Run forward and backward by the clock."""
    middle = 0.0

    def timed() -> Images:
        nonlocal middle
        images = render()
        middle = time.perf_counter()
        return images

    forget(scene)
    start = time.perf_counter()
    images = back(scene, timed)
    end = time.perf_counter()
    return lambda: (1e3 * (middle - start), 1e3 * (end - middle), 1e3 * (end - start), None), images


def step_cuda(scene: Scene, render: Render) -> tuple[Reading, Images]:
    """Run forward and backward by events on the stream; the host is free to run ahead, as in training."""
    start, middle, end = (torch.cuda.Event(enable_timing=True) for _ in range(3))

    def timed() -> Images:
        images = render()
        middle.record()
        return images

    forget(scene)
    start.record()
    began = time.perf_counter()
    images = back(scene, timed)
    host = 1e3 * (time.perf_counter() - began)
    end.record()

    def reading() -> Times:
        end.synchronize()
        return start.elapsed_time(middle), middle.elapsed_time(end), start.elapsed_time(end), host

    return reading, images


def capture(scene: Scene, render: Render) -> Step:
    """Capture forward and backward in a CUDA graph; a step replays it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            forget(scene)
            back(scene, render)
    torch.cuda.current_stream().wait_stream(stream)
    forget(scene)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        images = back(scene, render)

    def step() -> tuple[Reading, Images]:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        began = time.perf_counter()
        graph.replay()
        host = 1e3 * (time.perf_counter() - began)
        end.record()

        def reading() -> Times:
            end.synchronize()
            return None, None, start.elapsed_time(end), host

        return reading, images

    return step


def agreement(
    scene: Scene, images: Images, expected: Images, gradients: list[Tensor]
) -> dict[str, float | int]:
    """Agreement by the names in Row: rgb and gradients against our portable build's, for the same gradients
    of images.
    """
    differences = []
    for leaf, other in zip(scene.leaves, gradients, strict=True):
        assert leaf.grad is not None
        differences.append((leaf.grad.cpu() - other).norm() / other.norm())
    return {
        "psnr": psnr(images[0], expected[0]),
        "gradients": torch.stack(differences).max().item(),
        "images": len(images),
    }


def psnr(images: Tensor, others: Tensor) -> float:
    """PSNR of images in [0, 1], in dB; 200 where they are equal."""
    error = (images.detach().cpu() - others.detach().cpu()).square().mean()
    return -10 * error.clamp(min=1e-20).log10().item()


class PeakMemory:
    """Peak since this was made, above what was held then."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.before: int | None = None
        if device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")  # lowers the peak to what is resident now
        except OSError:
            return
        self.before = self._resident_peak()

    def peak(self) -> float | None:
        """Peak in MiB, None where the system does not report it."""
        if self.before is None:
            return None
        now = torch.cuda.max_memory_allocated() if self.device == "cuda" else self._resident_peak()
        return (now - self.before) / MIB

    @staticmethod
    def _resident_peak() -> int:
        status = Path("/proc/self/status").read_text().splitlines()
        line = next(line for line in status if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])


def available_memory(device: str) -> float:
    """Bytes that a new process can have there."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    info = Path("/proc/meminfo")
    if info.exists():
        line = next(line for line in info.read_text().splitlines() if line.startswith("MemAvailable"))
        return 1024 * int(line.split()[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2
