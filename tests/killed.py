"""Runs in processes that die, for test_killed.py."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

# Loaded here once for all processes.
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel  # noqa: F401
from transformers import CLIPTextModel, CLIPTokenizer  # noqa: F401

import scene.ply
import train
import utils.checkpoints
import utils.files
import utils.media

WRITERS = (utils.files, utils.checkpoints, utils.media, scene.ply)
PLACES = ("before it is written", "in the middle", "before it has its name", "after it has its name")


def run(flags: list[str], outputs: str, die: tuple[int, int] | None = None) -> None:
    """Run `train.py` with these flags. die: kill this process at the nth file, at a place of PLACES."""
    torch.set_num_threads(1)
    if die is not None:
        die_at_file(*die)
    config = train.load([*flags, "--quiet"])
    train.train(config, Path(outputs))
    sys.stdout.flush()


def command(flags: list[str], outputs: str) -> None:
    """Do what `python train.py` does when everything is imported, in a folder of its own."""
    torch.set_num_threads(1)
    os.makedirs(outputs)
    os.chdir(outputs)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(train.main(train.load([*flags, "--quiet"])))


def die_at_file(number: int, place: int) -> None:
    usual, count = utils.files.atomic_path, 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def deadly(path: str | os.PathLike[str], *, durable: bool = False) -> Iterator[Path]:
        nonlocal count
        count += 1
        due = count == number
        if due and place == 0:
            die()
        with usual(path, durable=durable) as temporary:
            yield temporary
            if due and place == 1:
                os.truncate(temporary, temporary.stat().st_size // 2)
            if due and place in (1, 2):
                die()
        if due:
            die()

    for module in WRITERS:
        module.atomic_path = deadly  # type: ignore[attr-defined]


def files_of(flags: list[str], outputs: str, tell: Callable[[int], None]) -> None:
    """Run `train.py` with these flags and give `tell` the number of files that it writes."""
    usual, count = utils.files.atomic_path, 0

    @contextmanager
    def counted(path: str | os.PathLike[str], *, durable: bool = False) -> Iterator[Path]:
        nonlocal count
        count += 1
        with usual(path, durable=durable) as temporary:
            yield temporary

    for module in WRITERS:
        module.atomic_path = counted  # type: ignore[attr-defined]
    run(flags, outputs)
    tell(count)
