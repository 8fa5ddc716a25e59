"""Work of one worker: one run, whose output goes to a file."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from config import Config

OnStep = Callable[[int], None]

Work = Callable[[Config, Path, OnStep], Path]
"""Function that makes a run under a folder of outputs, reports every iteration, and returns the run's folder."""


def train_run(config: Config, outputs: Path, on_step: OnStep) -> Path:
    # Here, so that importing this module is quick.
    from train import train

    return train(config, outputs, on_step).run.root


def attempt(work: Work, config: Config, outputs: Path, on_step: OnStep, log: Path) -> tuple[Path | None, str]:
    """Try a run: its folder, or None and why there is none, in one line; the log has the rest."""
    with output_to(log):
        logging.basicConfig(format="%(message)s", level=logging.INFO)
        try:
            return work(config, outputs, on_step), ""
        except Exception as error:
            traceback.print_exc()
            return None, " ".join(f"{error}".split()) or type(error).__name__


@contextmanager
def output_to(log: Path) -> Iterator[None]:
    """Send whatever this process prints, compiled code included, to the end of a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    streams = (sys.stdout, sys.stderr)
    before = [os.dup(number) for number in (1, 2)]
    with log.open("ab") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        for stream in streams:
            stream.flush()
        for kept, number in zip(before, (1, 2)):
            os.dup2(kept, number)
            os.close(kept)
