"""Make the runs that are missing, in an order of their own or several at a time; one that fails stops no other."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from tqdm import tqdm

from evaluation.runs import Archive
from evaluation.suite import Run
from utils.run_folder import RunFolder, slug

ATTEMPTS = 2
"""Attempts at a run: one that fails is repeated once, for a machine may have been lost."""


@dataclass(frozen=True)
class Attempt:
    """Run to be made, for the `number`-th time; log: the file of what it prints."""

    run: Run
    number: int
    log: Path


@dataclass(frozen=True)
class Step:
    """Event of an attempt that has come to an iteration, from 1."""

    attempt: Attempt
    step: int


@dataclass(frozen=True)
class Made:
    """Event of an attempt that has left a finished run in the folder `root`."""

    attempt: Attempt
    root: Path


@dataclass(frozen=True)
class Failed:
    """Event of an attempt that has come to nothing; reason: a clause or sentence."""

    attempt: Attempt
    reason: str


Event = Step | Made | Failed


class Workers(Protocol):
    """Workers that make runs. A context manager, whose end stops what is under way."""

    @property
    def free(self) -> bool:
        """True if one more can be started."""

    @property
    def busy(self) -> bool:
        """True if any is under way."""

    def start(self, attempt: Attempt) -> None: ...

    def wait(self) -> Iterable[Event]:
        """Wait until there is something new, and return it."""

    def __enter__(self) -> Workers: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def missing(runs: Iterable[Run], archive: Archive) -> list[Run]:
    """Runs that the archive does not have, each configuration once."""
    found: dict[str, Run] = {}
    for run in runs:
        if run.key not in found and archive.find(run.config) is None:
            found[run.key] = run
    return list(found.values())


def make(runs: Iterable[Run], archive: Archive, workers: Workers) -> dict[str, str]:
    """Make the runs that the archive does not have, in their order, and put them into it.

    Returns why runs failed, by name, each a sentence that names the log. An interruption loses the runs under way.
    """
    todo = missing(runs, archive)
    waiting = deque(_attempt(run, 1, archive) for run in todo)
    failures: dict[str, str] = {}
    if not todo:
        return failures
    made, steps = 0, {run.key: 0 for run in todo}
    iterations = {run.key: run.config.optimization.iterations for run in todo}
    with workers, tqdm(total=sum(iterations.values()), unit="it", dynamic_ncols=True) as bar:
        while waiting or workers.busy:
            bar.set_description(f"{made} of {len(todo)} runs")
            while waiting and workers.free:
                workers.start(waiting.popleft())
            for event in workers.wait():
                run, number = event.attempt.run, event.attempt.number
                match event:
                    case Step(step=step):
                        steps[run.key] = step
                    case Made(root=root):
                        _keep_log(event.attempt.log, root)
                        archive.add(root)
                        made, steps[run.key] = made + 1, iterations[run.key]
                    case Failed(reason=reason):
                        why = f"{run.name} failed: {reason.rstrip('.')} (log: {event.attempt.log})."
                        steps[run.key] = 0
                        if number < ATTEMPTS:
                            waiting.append(_attempt(run, number + 1, archive))
                            why += " It is repeated once."
                        else:
                            failures[run.name] = why
                        tqdm.write(why, file=sys.stderr)
            bar.n = sum(steps.values())
            bar.refresh()
    return failures


def _attempt(run: Run, number: int, archive: Archive) -> Attempt:
    return Attempt(run, number, archive.root / "logs" / f"{slug(run.name, 100)}-{run.key}-{number}.log")


def _keep_log(log: Path, root: Path) -> None:
    """Move what a finished run printed into its folder; what stays among the logs are failures."""
    if log.exists():
        log.replace(RunFolder(root).log)
