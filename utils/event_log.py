"""TensorBoard's log of a run, which may fail without taking the run along."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)


class EventLog:
    """Log of scalars, pictures and histograms by 'group/name' and iteration.

    If the disk takes no more, one warning is logged and the log ends there.

    Args:
        done: iterations of an earlier part of the run; whatever that logged beyond them is disregarded.
    """

    def __init__(self, folder: Path, done: int = 0) -> None:
        _hush_the_writer()
        self._writer: SummaryWriter | None = None
        try:
            self._writer = SummaryWriter(str(folder), purge_step=done + 1 if done else None)
        except OSError as error:
            self._give_up(error)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        def add(writer: SummaryWriter) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)

        self._try(add)

    def image(self, name: str, image: Tensor, step: int) -> None:
        """Log an image [3, H, W] in [0, 1]."""
        self._try(lambda writer: writer.add_image(name, image, step))

    def histogram(self, name: str, values: Tensor, step: int) -> None:
        self._try(lambda writer: writer.add_histogram(name, values, step))

    def flush(self) -> None:
        """Wait until all of it is in the file."""
        self._try(lambda writer: writer.flush())

    def close(self) -> None:
        self._try(lambda writer: writer.close())

    def _try(self, act: Callable[[SummaryWriter], object]) -> None:
        if self._writer is None:
            return
        try:
            act(self._writer)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._writer = None
        logger.warning(
            "The TensorBoard log cannot be written (%s): the run goes on without it.", error.strerror or error
        )


def gather(values: Mapping[str, float | Tensor]) -> Callable[[], dict[str, float]]:
    """Return a function that fetches scalars by name to the host, those on a device in a single transfer.

    All scalars on a device must be on the same one. Only the call waits for the device; tensors may be changed
    before.
    """
    there = {name: value.detach().float() for name, value in values.items() if isinstance(value, Tensor)}
    here = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
    together = torch.stack(list(there.values())) if there else torch.empty(0)
    return lambda: {**here, **dict(zip(there, together.tolist()))}


def scalars_in(folder: Path) -> dict[str, dict[int, float]]:
    """Read the scalars logged in a folder, by name and then by step; {} without a log.

    If a resumed run logs a step again, the last value counts.
    """
    # Not needed by those who write.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # It announces where it has stopped looking for more.
    logging.getLogger("tensorboard").setLevel(logging.WARNING)
    kept = {"scalars": 0, "images": 1, "histograms": 1}
    log = EventAccumulator(str(folder), size_guidance=kept).Reload()
    return {name: {event.step: event.value for event in log.Scalars(name)} for name in log.Tags()["scalars"]}


def _hush_the_writer() -> None:
    """Keep the writer's own thread from printing errors that its next call raises here as well."""
    usual = threading.excepthook
    if getattr(usual, "hushes_the_writer", False):
        return

    def hook(args: threading.ExceptHookArgs) -> None:
        if not (isinstance(args.exc_value, OSError) and type(args.thread).__name__ == "_AsyncWriterThread"):
            usual(args)

    hook.hushes_the_writer = True  # type: ignore[attr-defined]
    threading.excepthook = hook
