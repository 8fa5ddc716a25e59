"""Thread for work that need not be waited for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch


def lone_thread(name: str) -> ThreadPoolExecutor:
    """Make a thread whose tensors are computed by it alone.

    A second team of OpenMP threads would make the first one's barriers sleep where they spin, and the loop half
    as fast on two cores.
    """
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
    # The setting is a thread's own once it has asked for it, but new threads take the last one made.
    usual = torch.get_num_threads()
    thread.submit(_compute_alone).result()
    torch.set_num_threads(usual)
    return thread


def _compute_alone() -> None:
    torch.get_num_threads()
    torch.set_num_threads(1)


class Background:
    """Jobs done one after the other by a thread of their own, while the caller goes on.

    An exception of a job is raised by the next call of a method; the jobs after it are done all the same.

    Args:
        most: bytes that unfinished jobs may hold together. A job that holds more gets its turn alone.
    """

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0
        self._thread = lone_thread("background")
        self._pending: deque[tuple[Future[None], int]] = deque()

    def submit(self, job: Callable[[], None], holds: int = 0) -> None:
        """Do `job`, which holds so many bytes, after those before it; wait while there is no room for it."""
        self._settle(self._most - holds)
        self._pending.append((self._thread.submit(job), holds))
        self._held += holds

    def drain(self) -> None:
        """Wait until all jobs are done."""
        while self._pending:
            self._forget_first()

    def close(self, *, drop: bool = False) -> None:
        """Wait until all jobs are done, or with `drop` only the one that has begun. No more can be submitted."""
        self._thread.shutdown(cancel_futures=drop)
        while self._pending:
            self._forget_first()

    def _settle(self, most: int) -> None:
        """Wait for the oldest jobs until the others hold at most `most` bytes."""
        while self._pending and (self._held > most or self._pending[0][0].done()):
            self._forget_first()

    def _forget_first(self) -> None:
        first, holds = self._pending.popleft()
        self._held -= holds
        if not first.cancelled():
            first.result()
