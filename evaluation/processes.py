"""Run in processes of their own: a run that dies takes no other along, and each one's peak memory is its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from config import Config
from evaluation import work
from evaluation.spread import Attempt, Event, Failed, Made, Step
from evaluation.work import Work
from utils.run_folder import OUTPUTS


class _Place(NamedTuple):
    """Place where a run can be made: an accelerator by name, or None for the processor."""

    number: int
    accelerator: str | None


class _Busy(NamedTuple):
    attempt: Attempt
    process: SpawnProcess
    place: _Place


class Processes:
    """Workers in processes: at most `jobs` runs at a time (default: one for each accelerator, or one), which
    share the cores.

    accelerators: their names, as `utils.device.accelerators` gives them; runs take turns on them if there are more jobs.
    """

    def __init__(
        self,
        jobs: int | None = None,
        accelerators: Sequence[str] = (),
        outputs: Path = OUTPUTS,
        task: Work = work.train_run,
    ) -> None:
        count = jobs or len(accelerators) or 1
        names: Sequence[str | None] = accelerators or [None]
        self._places = [_Place(k, names[k % len(names)]) for k in range(count)]
        self._threads = max(1, (os.cpu_count() or 1) // count)
        self._outputs, self._task = outputs, task
        self._busy: dict[Connection, _Busy] = {}

    @property
    def free(self) -> bool:
        return bool(self._places)

    @property
    def busy(self) -> bool:
        return bool(self._busy)

    def start(self, attempt: Attempt) -> None:
        place, context = self._places.pop(0), get_context("spawn")
        hears, tells = context.Pipe(duplex=False)
        given = (self._task, attempt.run.config, self._outputs, attempt.log, place, self._threads, tells)
        process = context.Process(target=_process, args=given, daemon=True)
        process.start()
        # The only other end is the process's: when it dies, reading ends.
        tells.close()
        self._busy[hears] = _Busy(attempt, process, place)

    def wait(self) -> Iterator[Event]:
        for connection in wait(list(self._busy)):
            assert isinstance(connection, Connection)
            attempt, process, place = self._busy[connection]
            try:
                told = connection.recv()
            except EOFError:
                process.join()
                told = _death(process.exitcode)
            if isinstance(told, int):
                yield Step(attempt, told)
                continue
            process.join()
            connection.close()
            del self._busy[connection]
            self._places.append(place)
            yield Made(attempt, told) if isinstance(told, Path) else Failed(attempt, told)

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection, under_way in self._busy.items():
            under_way.process.kill()
            under_way.process.join()
            connection.close()
        self._busy.clear()


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its process was killed by {signal.Signals(-code).name}, perhaps for want of memory"
    return f"its process ended with exit status {code}"


def _process(
    task: Work, config: Config, outputs: Path, log: Path, place: _Place, threads: int, tells: Connection
) -> None:
    # Ctrl-C reaches every process; the parent reports what happened.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Read when torch is imported, which comes later.
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    if place.accelerator is not None:
        from utils.device import see_only

        see_only(place.accelerator)
    root, reason = work.attempt(task, config, outputs, tells.send, log)
    tells.send(root or reason)
