"""Time the parts of an iteration without holding up the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch

from utils import moments
from utils.moments import Moment

Rows = Callable[..., int]
"""Function from the arguments of a call to the number of views or latents it is for."""


@dataclass(frozen=True)
class Span:
    """Part that was done, for `rows` views or latents."""

    name: str
    start: Moment
    end: Moment
    rows: int = 0

    @property
    def ms(self) -> float:
        """Milliseconds that it took. To be read after `Clock.wait` only."""
        return self.start.elapsed_time(self.end)


class Clock:
    """Collector of spans. On an accelerator their ends are events on its stream, so that the host may run
    ahead as in training.
    """

    def __init__(self, device: torch.device) -> None:
        self.spans: list[Span] = []
        self._device = device

    def now(self) -> Moment:
        return moments.now(self._device)

    def wait(self) -> None:
        """Wait until all that was noted has happened."""
        moments.wait(self._device)

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
