"""Files that a mesh names: found beside it or below, and nowhere else."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

MAX_PIXELS = 8192 * 8192
"""Largest texture in pixels: a file of a few kilobytes can claim any number."""


def find_beside(path: str, name: str) -> Path | None:
    """Find the file that the mesh at `path` calls `name`, or return None.

    Slashes may lean either way, and letters may differ in case. A file that is not at its place is taken from
    the mesh's own folder, with a warning: such places are mostly those of the computer that wrote the mesh.
    """
    folder = Path(path).parent.resolve()
    pure = PurePosixPath(name.strip().replace("\\", "/"))
    for place in (pure, PurePosixPath(pure.name)):
        if not place.name or "\0" in name:
            continue
        try:
            exact = (folder / place).resolve()
            found = exact if exact.is_file() else _in_any_case(folder, place)
            inside = found is not None and found.resolve().is_relative_to(folder)
        except OSError:  # a name too long for the system, or a folder that must not be read
            continue
        if found is not None and inside and found.is_file():
            if place != pure:
                logging.warning(
                    "%r names %r, which is not there: %r beside it is used.", path, name, place.name
                )
            return found
    return None


def _in_any_case(folder: Path, place: PurePosixPath) -> Path | None:
    """The file or folder at a relative place below `folder`, letters in upper or lower case."""
    if place.is_absolute() or ".." in place.parts:
        return None
    for part in place.parts:
        same = [entry for entry in sorted(folder.iterdir()) if entry.name.lower() == part.lower()]
        if not same:
            return None
        folder = same[0]
    return folder


@dataclass(frozen=True, eq=False)
class Picture:
    """An encoded picture of the mesh at `path`, and its name for messages."""

    path: str
    name: str
    content: bytes = field(repr=False)

    def decode(self) -> np.ndarray | None:
        """Return its pixels [H, W, 3] in uint8, top row first; None, with a warning, if it cannot be decoded."""
        try:
            with Image.open(io.BytesIO(self.content)) as image:
                if image.width * image.height > MAX_PIXELS:
                    what = f"it has {image.width} x {image.height} pixels, at most {MAX_PIXELS} are read"
                    raise ValueError(what)
                if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip to 8
                    grey = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
                    return np.repeat(grey[:, :, None], 3, axis=2)
                return np.asarray(image.convert("RGB"))
        except Exception as error:  # Pillow's decoders raise whatever their parsing runs into
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            message = "%r: texture cannot be read, %r (%s): the plain colour is used instead."
            logging.warning(message, self.path, self.name, reason)
            return None


def picture_beside(path: str, name: str) -> Picture | None:
    """Read the picture that the mesh at `path` calls `name`; None, with a warning, if it is not there."""
    found = find_beside(path, name)
    if found is None:
        logging.warning("%r: texture %r is not there, so the plain colour is used instead.", path, name)
        return None
    return Picture(path, name, found.read_bytes())


def plural(count: int, what: str) -> str:
    """Write a count and its noun, such as '1 camera' and '2 cameras'."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def report_unused(path: str, what: Iterator[str] | list[str]) -> None:
    """Report in one line what a reader of meshes has left out."""
    if found := list(dict.fromkeys(what)):
        logging.warning("%r: not used: %s.", path, ", ".join(found))
