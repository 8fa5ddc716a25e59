"""Cache of compiled kernels on disk, so that a machine compiles them once and not every process does.

An entry is the checksum of an image followed by the image. It is written to a file of its own and then
renamed, so that any number of processes may read and write the same entry at once and one that is killed
leaves no half of it behind.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

_FORMAT = 1
_CHECKSUM_BYTES = hashlib.sha256().digest_size
_UNUSED_SECONDS = 90 * 24 * 3600
_log = logging.getLogger(__name__)


def folder() -> Path:
    """The folder of the entries, which has one per architecture. Raises RuntimeError if this user has no home."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    local = os.environ.get("LOCALAPPDATA")  # Windows
    base = Path(given) if os.path.isabs(given) else Path(local) if local else Path.home() / ".cache"
    return base / "diff-gaussian-rasterization"


def fetch(architecture: str, inputs: Sequence[str], build: Callable[[], bytes]) -> bytes:
    """The image that build() makes for this architecture, from the disk if it was made there of the same
    inputs before.

    inputs: every text and option that the image depends on. A damaged entry is built again; a disk that cannot be
    written to costs a warning and the next process's time.
    """
    digest = hashlib.sha256(json.dumps([_FORMAT, architecture, *inputs]).encode()).hexdigest()
    try:
        path = folder() / architecture / digest
    except RuntimeError as error:
        _warn(error)
        return build()
    image = _read(path)
    if image is None:
        image = build()
        try:
            _write(path, image)
        except OSError as error:
            _warn(error)
    return image


def _read(path: Path) -> bytes | None:
    try:
        entry = path.read_bytes()
    except OSError:
        return None
    checksum, image = entry[:_CHECKSUM_BYTES], entry[_CHECKSUM_BYTES:]
    if hashlib.sha256(image).digest() != checksum:
        _log.warning("%s is damaged and is made anew.", path)
        return None
    with suppress(OSError):
        os.utime(path)  # it is in use: see _remove_unused
    return image


def _write(path: Path, image: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(hashlib.sha256(image).digest() + image)
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
    _remove_unused(path.parent)


def _remove_unused(entries: Path) -> None:
    """Delete what no process has read or written for 90 days: of older sources, or left by a killed process."""
    for path in entries.iterdir():
        with suppress(OSError):
            if path.stat().st_mtime < time.time() - _UNUSED_SECONDS:
                path.unlink()


def _warn(error: Exception) -> None:
    warnings.warn(f"Compiled kernels could not be kept for the next process: {error}.", stacklevel=2)
