"""Meshes in .npz files: those of body models, SMPL and its kin, and the skins of skeletons."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Mapping

import numpy as np

from scene.meshes.colors import Array, Paint
from scene.meshes.shapes import Placed, Shape

MAX_ROWS, MAX_COUNT = 10_000_000, 30_000_000
"""Largest number of rows of an array, and of its numbers: a SMPL-X has 600,000 weights."""
MAX_RATIO = 100
"""How many times the file's own size an array in it may unpack to."""
Wanted = Mapping[str, tuple[tuple[int, ...], str]]
"""Array -> its shape, of which the first length is the largest that it may have, and -1 any; and the kinds of its numbers.
An array whose name ends in a question mark may be missing."""
BODY: Wanted = {"v_template": ((MAX_ROWS, 3), "f"), "f": ((MAX_ROWS, 3), "iu")}
SKIN: Wanted = {
    "vertices": ((MAX_ROWS, 3), "f"),
    "faces": ((MAX_ROWS, 3), "iu"),
    "colors?": ((MAX_ROWS, 3), "u"),
}


def read_npz(path: str) -> list[Placed]:
    """Read the template of a body model, `v_template` and `f`, or a skin, `vertices` and `faces`."""
    body = "v_template" in names(path)
    found = arrays(path, BODY if body else SKIN)
    vertices, faces = (found[name] for name in (("v_template", "f") if body else ("vertices", "faces")))
    colors = None if found.get("colors") is None else found["colors"] / 255
    return [(Shape(vertices.astype(np.float64), faces.astype(np.int64), Paint(vertices=colors)), np.eye(4))]


def names(path: str) -> list[str]:
    """Return the names of a file's arrays. Raises ValueError, one sentence, if it is no .npz file."""
    try:
        with zipfile.ZipFile(path) as file:
            return [name.removesuffix(".npy") for name in file.namelist() if name.endswith(".npy")]
    except Exception as error:  # what zipfile's parsing runs into
        raise ValueError(f"{path!r} cannot be read as .npz ({_words(error)}).") from error


def arrays(path: str, wanted: Wanted) -> dict[str, Array]:
    """Read arrays of an .npz file, without running what a pickled one holds.

    Raises ValueError, one sentence, for one that is not there, is damaged, or is of another shape or kind.
    """
    there, found = names(path), {}
    for key, (shape, kinds) in wanted.items():
        name = key.removesuffix("?")
        if name in there:
            found[name] = _array(path, name, shape, kinds)
        elif not key.endswith("?"):
            needed = ", ".join(each for each in wanted if not each.endswith("?"))
            raise ValueError(f"{path!r} has no array {name!r}, but needs {needed}.")
    return found


def _array(path: str, name: str, shape: tuple[int, ...], kinds: str) -> Array:
    try:
        with zipfile.ZipFile(path) as file, file.open(f"{name}.npy") as content:
            version = np.lib.format.read_magic(content)
            header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            size, _, kind = header(content)
            held = file.getinfo(f"{name}.npy").file_size
    except Exception as error:  # what zipfile's and numpy's parsing run into
        raise ValueError(f"{path!r} holds no sound array {name!r} ({_words(error)}).") from error
    if kind.hasobject:
        raise ValueError(
            f"{path!r} has its {name!r} as a pickled object, which is not read, for pickles run code: save it as an array of "
            f"numbers, such as {name}.toarray() of a sparse one."
        )
    fits = len(size) == len(shape) and all(most in (-1, length) for length, most in zip(size[1:], shape[1:]))
    count = math.prod(size)
    if kind.kind not in kinds or not fits or not 0 < size[0] <= shape[0] or not 0 < count <= MAX_COUNT:
        what = " x ".join(["N", *("M" if most == -1 else str(most) for most in shape[1:])])
        raise ValueError(
            f"{path!r} has its {name!r} as {kind} of {' x '.join(map(str, size))}, but {what} "
            f"{'floats' if kinds == 'f' else 'whole numbers'} are needed, at most {MAX_COUNT} in all."
        )
    if not count * kind.itemsize <= held <= MAX_RATIO * os.path.getsize(path):
        raise ValueError(f"{path!r} claims {count} numbers of {name!r}, which it has no room for.")
    try:
        with np.load(path, allow_pickle=False) as file:
            return np.asarray(file[name])
    except Exception as error:
        raise ValueError(f"{path!r} holds no sound array {name!r} ({_words(error)}).") from error


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
