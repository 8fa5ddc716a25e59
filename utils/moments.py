"""Points in a device's work, between which its time is measured without holding it up."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import torch

from utils.device import HOST


class Moment(Protocol):
    """A point in a device's work."""

    def record(self) -> None: ...

    def elapsed_time(self, end_event: Any) -> float:
        """Milliseconds from here to a later moment."""


class HostMoment:
    """A point in time by the clock: on the host, work is done when the call returns."""

    def record(self) -> None:
        self._at = time.perf_counter()

    def elapsed_time(self, end_event: HostMoment) -> float:
        return 1e3 * (end_event._at - self._at)


def now(device: torch.device) -> Moment:
    """Note a moment after all that `device` was given to do so far. On an accelerator it is an event on its stream."""
    on_host = device.type == HOST.type
    moment: Moment = HostMoment() if on_host else torch.Event(device, enable_timing=True)
    moment.record()
    return moment


def wait(device: torch.device) -> None:
    """Wait until all moments noted so far have come."""
    if device.type != HOST.type:
        torch.accelerator.synchronize(device)


def milliseconds(run: Callable[[], object], device: torch.device, calls: int = 5, repeats: int = 3) -> float:
    """Milliseconds of a call of `run`: the least mean of `repeats` times `calls` calls in a row, after one to
    warm up."""
    run()
    found = []
    for _ in range(repeats):
        start = now(device)
        for _ in range(calls):
            run()
        end = now(device)
        wait(device)
        found.append(start.elapsed_time(end) / calls)
    return min(found)
