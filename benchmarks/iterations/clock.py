"""When the parts of an iteration begin and end, noted without holding up the device."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Protocol

import torch

Rows = Callable[..., int]
"""From the arguments of a call, how many views or latents it is for."""


class Moment(Protocol):
    """A point in a device's work."""

    def record(self) -> None: ...

    def elapsed_time(self, end_event: Any) -> float:
        """Milliseconds from here to a later one."""


class HostMoment:
    """By the clock: on the host, work is done when the call returns."""

    def record(self) -> None:
        self._at = time.perf_counter()

    def elapsed_time(self, end_event: HostMoment) -> float:
        return 1e3 * (end_event._at - self._at)


@dataclass(frozen=True)
class Span:
    """Something that was done, for `rows` views or latents."""

    name: str
    start: Moment
    end: Moment
    rows: int = 0

    @property
    def ms(self) -> float:
        """To be asked for after `Clock.wait` only."""
        return self.start.elapsed_time(self.end)


class Clock:
    """Collects spans. On an accelerator their ends are events on its stream, so that the host may run ahead as in training."""

    def __init__(self, device: torch.device) -> None:
        self.spans: list[Span] = []
        self._device = device

    def now(self) -> Moment:
        on_host = self._device.type == "cpu"
        moment: Moment = HostMoment() if on_host else torch.Event(self._device, enable_timing=True)
        moment.record()
        return moment

    def wait(self) -> None:
        """Until all that was noted has happened."""
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)

    def timed(self, name: str, function: Callable[..., Any], rows: Rows | None = None) -> Callable[..., Any]:
        """`function`, whose calls become spans."""

        @wraps(function)
        def noted(*args: Any, **kwargs: Any) -> Any:
            start = self.now()
            result = function(*args, **kwargs)
            count = 0 if rows is None else rows(*args, **kwargs)
            self.spans.append(Span(name, start, self.now(), count))
            return result

        return noted

    def last(self, name: str) -> Span:
        return next(span for span in reversed(self.spans) if span.name == name)
