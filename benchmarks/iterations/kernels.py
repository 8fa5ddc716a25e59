"""Profile what a device runs during a call, kernel by kernel, and what the host calls meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

HEAVIEST = 40
COPIES = ("Memcpy", "Memset")
"""Names that the profiler gives to what is no kernel."""


@dataclass(frozen=True)
class Kernel:
    """Figures of a kernel. calls: per run; ms: of all of them, per run; share: of all kernels' time."""

    name: str
    calls: float
    ms: float
    share: float


@dataclass(frozen=True)
class Profile:
    """Figures per run.

    The heaviest kernels and copies come first. Then: how many kernels were launched, how many copies were
    made, how long all took, and the host's calls by name.

    On the host torch's operations stand for kernels, and no calls are known.
    """

    heaviest: list[Kernel]
    launches: float
    copies: float
    ms: float
    host_calls: dict[str, float]


def profiled(run: Callable[[], object], device: torch.device, repeats: int = 1) -> Profile:
    """A profile of `repeats` runs, after one that is not looked at."""
    run()
    on_host = device.type == "cpu"
    wanted = [ProfilerActivity.CPU] if on_host else [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    if not on_host:
        torch.accelerator.synchronize(device)
    with profile(activities=wanted) as found:
        for _ in range(repeats):
            run()
        if not on_host:
            torch.accelerator.synchronize(device)
    return summary(found.key_averages(), on_host=on_host, repeats=repeats)


def summary(events: Any, *, on_host: bool, repeats: int) -> Profile:
    """Sum up a profiler's averages."""
    wanted = DeviceType.CPU if on_host else DeviceType.CUDA
    kernels, calls = [], {}
    for event in events:
        if getattr(event, "is_user_annotation", False):
            continue  # lasts as long as the kernels under it, which are here too
        microseconds = event.self_cpu_time_total if on_host else event.self_device_time_total
        if event.device_type == wanted and microseconds > 0:
            kernels.append((event.key, event.count / repeats, microseconds / 1e3 / repeats))
        elif event.device_type == DeviceType.CPU and event.key.startswith(("cuda", "cu")):
            calls[event.key] = event.count / repeats
    total = sum(ms for _, _, ms in kernels)
    kernels.sort(key=lambda kernel: -kernel[2])
    heaviest = [Kernel(name, count, ms, ms / total) for name, count, ms in kernels[:HEAVIEST]]
    copies = sum(count for name, count, _ in kernels if name.startswith(COPIES))
    return Profile(heaviest, sum(count for _, count, _ in kernels) - copies, copies, total, calls)
