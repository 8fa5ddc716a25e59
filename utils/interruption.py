"""SIGTERM and Ctrl-C as something that a loop looks at when it is ready."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class Interrupted(Exception):
    """A signal has stopped the run. The message is one sentence.

    Args:
        number: the signal.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


class Interruption:
    """A context in which the first SIGINT or SIGTERM is only noted in `signal`; the second one acts as it always does.

    Outside of the main thread, where Python allows no handlers, it notes nothing.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._usual: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._usual = {
                number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)
            }
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._as_usual()

    def _as_usual(self) -> None:
        while self._usual:
            signal.signal(*self._usual.popitem())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._as_usual()
