"""Checkpoints: a run's tensors and facts on disk, whole and checked, the last two of them kept.

Each is two files, `iteration_N.safetensors` and, written after it, `iteration_N.json`: without the second there is no
checkpoint. The second holds the SHA-256 of the first, and its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from utils.files import atomic_path, digest_of_file

KEPT = 2
LAYOUT = 2
LARGEST_FACTS = 1_000_000
"""Largest JSON file in bytes; that of a run has 10,000."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A run's state at an iteration.

    Attributes:
        step: iterations that are done.
        tensors: by name, contiguous and on the host.
        facts: what JSON can hold.
    """

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint so that neither a crash nor a power cut leaves half of one.

    All but the last KEPT go, and those of later iterations. Raises OSError if the disk does not take it; the
    ones from before stay.
    """
    tensors, described = _files(folder, checkpoint.step)
    with atomic_path(tensors, durable=True) as temporary:
        _save_tensors(checkpoint.tensors, temporary)
        size, digest = temporary.stat().st_size, digest_of_file(temporary)
    body = {
        "layout": LAYOUT,
        "step": checkpoint.step,
        "bytes": size,
        "sha256": digest,
        "facts": checkpoint.facts,
    }
    with atomic_path(described, durable=True) as temporary:
        temporary.write_text(json.dumps({"sha256": _digest_of(body), "checkpoint": body}, indent=1) + "\n")
    kept = [step for step in steps_in(folder) if step <= checkpoint.step][-KEPT:]
    # Later ones are of a future that the run has gone back from.
    for step in set(steps_in(folder)) - set(kept):
        remove(folder, step)


def remove(folder: Path, step: int) -> None:
    """Remove a checkpoint, the JSON file first: a removal that is cut short leaves no checkpoint."""
    for path in reversed(_files(folder, step)):
        path.unlink(missing_ok=True)


def steps_in(folder: Path) -> list[int]:
    """List the iterations of the checkpoints in a folder, sound or not, ascending; [] if there is no such folder."""
    found = (re.fullmatch(r"iteration_(\d{1,9})\.json", path.name) for path in folder.glob("*.json"))
    return sorted(int(match[1]) for match in found if match)


def load(folder: Path, step: int) -> Checkpoint:
    """Load a checkpoint, its tensors on the host.

    Raises ValueError, one sentence, if it is not what `save` wrote, and OSError if its files cannot be read.
    """
    tensors, described = _files(folder, step)
    body = _read_body(described)
    if tensors.stat().st_size != body["bytes"] or digest_of_file(tensors) != body["sha256"]:
        raise ValueError(f"{tensors} is not as it was written: it is cut short or changed.")
    try:
        return Checkpoint(step, load_file(tensors), body["facts"])
    except (SafetensorError, ValueError, KeyError) as error:
        raise ValueError(f"{tensors} holds no tensors that can be read ({error}).") from None


def load_last(folder: Path) -> Checkpoint | None:
    """Load the last sound checkpoint in a folder, None if there is none at all; damaged ones are named in warnings.

    Raises ValueError, one sentence, if all are damaged.
    """
    steps = steps_in(folder)
    for step in reversed(steps):
        try:
            return load(folder, step)
        except (ValueError, OSError) as error:
            logger.warning("The checkpoint of iteration %d cannot be used: %s", step, error)
    if steps:
        raise ValueError(f"None of the checkpoints in {folder} can be used: repeat the run from its start.")
    return None


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        # What the disk refuses comes as one of these.
        raise OSError(f"{path.name} cannot be written: {error}") from error


def _files(folder: Path, step: int) -> tuple[Path, Path]:
    """Return the paths of the tensors and of the JSON file."""
    return folder / f"iteration_{step}.safetensors", folder / f"iteration_{step}.json"


def _read_body(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        content = file.read(LARGEST_FACTS + 1)
    try:
        whole: Any = json.loads(content) if len(content) <= LARGEST_FACTS else None
        body = whole["checkpoint"]
        sound = whole["sha256"] == _digest_of(body) and isinstance(body["facts"], dict)
        sound = sound and {"layout", "bytes", "sha256"} <= set(body)
    except (KeyError, TypeError, ValueError, RecursionError):
        sound = False
    if not sound:
        raise ValueError(f"{path} is not as it was written: it is cut short or changed.")
    if body["layout"] != LAYOUT:
        raise ValueError(f"{path} has layout {body['layout']}, but this version reads {LAYOUT}.")
    return body


def _digest_of(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
