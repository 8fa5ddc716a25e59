"""Context of a step's process, and how it waits for its turn."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .records import Records

ROOT = Path(__file__).parents[2]
READY, GO = ".ready", ".go"
"""Endings of the files by which a step that has prepared itself and whoever runs the steps wait for each other."""


@dataclass(frozen=True)
class Context:
    """Surroundings of a step.

    records: what was found; work: a folder for large files, which goes when the step is done; device: "cuda",
    or in a rehearsal "cpu".
    """

    records: Records
    work: Path
    device: str

    @property
    def rehearsal(self) -> bool:
        return self.device == "cpu"

    def wait_for_turn(self) -> None:
        """Wait until the machine is quiet."""
        self.records.path.with_suffix(READY).touch()
        while not self.records.path.with_suffix(GO).exists():
            time.sleep(0.05)


def main(run: Callable[[Context], None], argv: Sequence[str] | None = None) -> None:
    """Run the program of a step: exits with 1 if a measurement has failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("records", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    given = parser.parse_args(argv)
    given.work.mkdir(parents=True, exist_ok=True)
    context = Context(Records(given.records), given.work, given.device)
    run(context)
    sys.exit(1 if context.records.failures() else 0)


@dataclass(frozen=True)
class Finished:
    """Exit code of a program, what it printed, and the seconds it took."""

    code: int
    output: str
    seconds: float


def program(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> Finished:
    """Run a program in `folder` to its end."""
    start = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    print(done.stdout, flush=True)
    return Finished(done.returncode, done.stdout, time.perf_counter() - start)


def last_lines(text: str, count: int = 5) -> str:
    """The end of what a program printed."""
    return "\n".join([line for line in text.splitlines() if line.strip()][-count:])
