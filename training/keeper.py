"""Checkpoints of a run: when they are written, and the way back from them."""

from __future__ import annotations

import logging
import re
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from config.schema import Config
from scene.densify import grows
from training.faults import settle
from training.state import Training, checkpoint_of
from utils import checkpoints
from utils.checkpoints import Checkpoint
from utils.ranks import RanksDiffer
from utils.run_folder import RunFolder

SHARE_FOR_GROWTH = 0.05
"""Largest share of the time that checkpoints may have cost for one before the number of Gaussians grows."""

logger = logging.getLogger(__name__)


class Keeper:
    """Writer of a run's checkpoints.

    It writes after `checkpoint_iterations`, every `checkpoint_minutes`, before density control adds Gaussians
    (where memory may run out), and whenever `keep` is called.

    Args:
        before: called before each, to bring to the disk what a resumed run will not make again.
    """

    def __init__(self, config: Config, run: RunFolder, before: Callable[[], None]) -> None:
        self._iterations, self._seconds = set(config.checkpoint_iterations), 60 * config.checkpoint_minutes
        self._params, self._run, self._before = config.optimization, run, before
        self._last, self._cost = time.monotonic(), 0.0

    def due(self, step: int) -> bool:
        """Return whether to keep the run after iteration `step`."""
        waited = time.monotonic() - self._last
        growth = grows(self._params, step + 1) and self._cost <= SHARE_FOR_GROWTH * waited
        return step in self._iterations or waited >= self._seconds or growth

    def keep(self, state: Training) -> bool:
        """Write a checkpoint; return whether the disk took it.

        If not, a warning is logged and the ones from before stay. Raises FloatingPointError as `settle` does:
        only what has been looked at is kept.
        """
        settle(state)
        began = time.monotonic()
        self._before()
        try:
            checkpoints.save(self._run.checkpoints, checkpoint_of(state))
        except OSError as error:
            steps = checkpoints.steps_in(self._run.checkpoints)
            last = f"the last one is of iteration {steps[-1]}" if steps else "there is none yet"
            logger.warning(
                "No checkpoint of iteration %d in %s (%s): the run goes on, %s.",
                state.counts.step,
                self._run.checkpoints,
                error.strerror or error,
                last,
            )
            return False
        finally:
            self._last = time.monotonic()
            self._cost = self._last - began
        return True

    @contextmanager
    def explaining(self, state: Training) -> Iterator[None]:
        """Keep the run, whatever ends the loop, and add how to go on: to the sentence for a number that is not finite or memory
        that has run out, in a line of its own for any other error."""
        try:
            yield
        except RanksDiffer:
            raise
        except FloatingPointError as error:
            raise FloatingPointError(f"{error} {self.last_words(state)}") from None
        except torch.OutOfMemoryError:
            at = state.counts.step + (0 if state.whole else 1)
            raise MemoryError(f"Out of memory at iteration {at}. {self.last_words(state)}") from None
        except Exception:
            logger.error(self.last_words(state))
            raise

    def last_words(self, state: Training) -> str:
        """Keep the run, if it is sound, and return how to go on with it.

        In the middle of an iteration it is not: density control may have been at work.
        """
        try:
            if state.whole and not state.gaussians.nonfinite():
                self.keep(state)
        except (RuntimeError, FloatingPointError) as error:  # a device that has failed gives nothing back
            reason = str(error).partition("\n")[0]
            logger.warning("No checkpoint of iteration %d (%s).", state.counts.step, reason)
        return self.way_on()

    def way_on(self) -> str:
        """Sentence on how to go on with the run from its last checkpoint."""
        steps = checkpoints.steps_in(self._run.checkpoints)
        if not steps:
            return "There is no checkpoint to go on from."
        return f"To go on from iteration {steps[-1]}: python train.py --resume {shlex.quote(str(self._run.root))}"


def checkpoint_to_resume(run: RunFolder, file: str | None) -> Checkpoint | None:
    """Load the last sound checkpoint of a run, or the one in `file`; None if there is none yet.

    Raises ValueError, one sentence, if the run is finished or the checkpoints are damaged, and OSError.
    """
    if file is not None:
        step = re.fullmatch(r"iteration_(\d{1,9})\.(json|safetensors)", Path(file).name)
        if step is None:
            raise ValueError(
                f"start_checkpoint is {file!r}, but it must be such as checkpoints/iteration_300.json."
            )
        return checkpoints.load(run.checkpoints, int(step[1]))
    if run.result.exists():
        raise ValueError(
            f"{run.root} is finished; --start_checkpoint continues it from one of its checkpoints."
        )
    found = checkpoints.load_last(run.checkpoints)
    if found is None:
        logger.warning("%s has no checkpoint yet: it starts over.", run.root)
    return found
