"""Run steps in processes of their own, each within its time, and keep what they leave."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from .plan import Step
from .records import Records
from .step import GO, READY, last_lines

POLL = 0.1
"""Seconds between two looks at a process."""
RESTARTS = 3
"""Starts that a step gets again, if it dies in one measurement after the other."""
DONE = "done"


@dataclass(frozen=True)
class Outcome:
    """Outcome of a step.

    state: DONE, "failed", "out of time" or "not run"; why: a line; log: the end of what it printed, unless it
    is done.
    """

    state: str
    seconds: float = 0.0
    why: str = ""
    log: str = ""


class Files:
    """Places of a step's files: its records, its outcome and its log under `out`/steps, large ones in `out`/work."""

    def __init__(self, out: Path, step: Step) -> None:
        self.records = out / "steps" / f"{step.name}.jsonl"
        self.outcome = self.records.with_suffix(".json")
        self.log = self.records.with_suffix(".log")
        self.ready, self.go = self.records.with_suffix(READY), self.records.with_suffix(GO)
        self.work = out / "work" / step.name

    def read_outcome(self) -> Outcome | None:
        """The outcome of the last call, None before the first one."""
        return Outcome(**json.loads(self.outcome.read_text())) if self.outcome.exists() else None


class Process:
    """Step at work. It is started again as often as it dies in a measurement and has others left."""

    def __init__(self, step: Step, out: Path, device: str, environment: Mapping[str, str]) -> None:
        self.step, self.files = step, Files(out, step)
        self._device, self._environment = device, environment
        self._records = Records(self.files.records)
        self._records.begin_call()
        for barrier in (self.files.ready, self.files.go):
            barrier.unlink(missing_ok=True)
        self._log = open(self.files.log, "a", encoding="utf-8")  # noqa: SIM115, it outlives this call
        self._restarts = RESTARTS
        self._start()

    def _start(self) -> None:
        self._lines = len(self._records.lines())
        files = (str(self.files.records), str(self.files.work))
        self._process = subprocess.Popen(
            [*self.step.command, *files, "--device", self._device],
            env=dict(self._environment),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def prepared(self) -> bool:
        """Return whether the step waits at its barrier, or has ended."""
        return self.files.ready.exists() or self._process.poll() is not None

    def finish(self, seconds: float) -> Outcome:
        """Give it its turn, and at most so many seconds from now."""
        self.files.go.touch()
        turn, deadline = time.monotonic(), time.monotonic() + seconds
        while True:
            while (code := self._process.poll()) is None and time.monotonic() < deadline:
                time.sleep(POLL)
            died = code not in (0, 1, None)
            if (
                died
                and self._restarts
                and time.monotonic() < deadline
                and len(self._records.lines()) > self._lines
            ):
                self._restarts -= 1
                self._start()
                continue
            return self._outcome(code, time.monotonic() - turn)

    def _outcome(self, code: int | None, seconds: float) -> Outcome:
        self.kill()
        log = last_lines(self.files.log.read_text(encoding="utf-8", errors="replace"), 15)
        failures = self._records.failures()
        if code is None:
            at = next(reversed(failures), "its start")
            return Outcome("out of time", seconds, f"it was stopped in: {at}", log)
        if failures:
            return Outcome(
                "failed", seconds, "; ".join(f"{name}: {why}" for name, why in failures.items()), log
            )
        if code:
            return Outcome("failed", seconds, f"its process ended with exit code {code}", log)
        return Outcome(DONE, seconds)

    def kill(self) -> None:
        """End it and all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()


def run(
    steps: Sequence[Step],
    out: Path,
    device: str,
    environment: Mapping[str, str],
    seconds: float,
    on_outcome: Callable[[], object] = lambda: None,
) -> dict[str, Outcome]:
    """Run the steps that are not done yet, one after the other, for so long at most; prints a line for each, and calls
    `on_outcome` after each. Large files are gone afterwards."""
    deadline = time.monotonic() + seconds
    (out / "steps").mkdir(parents=True, exist_ok=True)
    outcomes: dict[str, Outcome] = {}
    waiting: list[Step] = []
    for step in steps:
        before, missing = Files(out, step).read_outcome(), step.missing()
        if before is not None and before.state == DONE:
            outcomes[step.name] = before
        elif missing:
            outcomes[step.name] = kept(step, out, Outcome("not run", why=f"missing: {', '.join(missing)}"))
        else:
            waiting.append(step)
    at_work = {step.name: Process(step, out, device, environment) for step in waiting if step.prepares}
    try:
        for step in waiting:
            if step.quiet:
                others = [process for name, process in at_work.items() if name != step.name]
                limit = min(
                    deadline, time.monotonic() + max((other.step.seconds for other in others), default=0)
                )
                while not all(other.prepared() for other in others) and time.monotonic() < limit:
                    time.sleep(POLL)
            left = min(step.seconds, deadline - time.monotonic())
            if left <= 0:
                outcomes[step.name] = kept(step, out, Outcome("not run", why="no time was left"))
            else:
                if step.name not in at_work:
                    at_work[step.name] = Process(step, out, device, environment)
                outcomes[step.name] = kept(step, out, at_work[step.name].finish(left))
                del at_work[step.name]
            on_outcome()
    finally:
        for process in at_work.values():
            process.kill()
        shutil.rmtree(out / "work", ignore_errors=True)
    return {step.name: outcomes[step.name] for step in steps}


def kept(step: Step, out: Path, outcome: Outcome) -> Outcome:
    """Write the outcome down and print it."""
    files = Files(out, step)
    files.outcome.write_text(json.dumps(asdict(outcome), indent=1) + "\n")
    shutil.rmtree(files.work, ignore_errors=True)
    why = f" ({outcome.why[:300]})" if outcome.why else ""
    print(f"{step.name}: {outcome.state}, {outcome.seconds:.0f} s{why}", flush=True)
    return outcome
