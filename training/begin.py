"""The beginning of a run: its folder, and its state at the start or at a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import config as configuration
from config import Config
from training.keeper import checkpoint_to_resume
from training.state import Training, assemble
from utils.ranks import Ranks
from utils.run_folder import RunFolder


@contextmanager
def run_folder_of(config: Config, outputs: Path) -> Iterator[RunFolder]:
    """Lock the run's folder: that of the run that is resumed, or a new one under `outputs`.

    A folder in which the run leaves nothing is removed again.
    """
    label = f"{config.guidance.text}-{config.guidance_type}"
    run = resumed(config) or RunFolder.create(config.model.workspace, label, outputs)
    try:
        with run.lock():
            run.remove_leftovers()
            yield run
    finally:
        run.remove_if_empty()


def begin(config: Config, ranks: Ranks) -> Training:
    """Assemble the run at its start, or where it was kept. Raises PriorError, ValueError and OSError, one sentence each."""
    if config.view and ranks.count > 1:
        raise ValueError(
            "view is true, but it shows runs of one process only: its pause would leave the others waiting."
        )
    run = resumed(config)
    checkpoint = None if run is None else checkpoint_to_resume(run, config.start_checkpoint)
    return assemble(configuration.of_new_run(config), checkpoint, ranks, force=config.force)


def resumed(config: Config) -> RunFolder | None:
    """The folder of the run that is resumed, None for a new run."""
    return configuration.run_to_resume(config.resume, config.start_checkpoint)
