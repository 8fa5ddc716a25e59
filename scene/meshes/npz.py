"""Meshes in .npz files: those of body models, SMPL and its kin, and the skins of skeletons."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping

import numpy as np

from scene.meshes.colors import Array, Paint
from scene.meshes.shapes import Placed, Shape

MAX_ROWS = 10_000_000
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
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path!r} cannot be read as .npz: {str(error).rstrip('.')}.") from error


def arrays(path: str, wanted: Wanted) -> dict[str, Array]:
    """Read arrays of an .npz file, without running what a pickled one holds.

    Raises ValueError, one sentence, for one that is not there, or of another shape or kind.
    """
    there, found = names(path), {}
    for key, (shape, kinds) in wanted.items():
        name = key.removesuffix("?")
        if name not in there:
            if key.endswith("?"):
                continue
            raise ValueError(
                f"{path!r} has no array {name!r}, but needs {', '.join(each for each in wanted if each[-1] != '?')}."
            )
        with zipfile.ZipFile(path) as file, file.open(f"{name}.npy") as content:
            try:
                version = np.lib.format.read_magic(content)
                read = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                size, _, kind = read(content)
            except (ValueError, zipfile.BadZipFile, EOFError) as error:
                raise ValueError(f"{path!r} holds no sound array {name!r}.") from error
        if kind.hasobject:
            raise ValueError(
                f"{path!r} has its {name!r} as a pickled object, which is not read, for pickles run code: save it as an "
                f"array of numbers, such as {name}.toarray() of a sparse one."
            )
        fits = len(size) == len(shape) and all(
            most in (-1, length) for length, most in zip(size[1:], shape[1:])
        )
        if (
            kind.kind not in kinds
            or not fits
            or not 0 < size[0] <= shape[0]
            or math.prod(size) > 8 * MAX_ROWS
        ):
            what = " x ".join(["N", *("M" if most == -1 else str(most) for most in shape[1:])])
            raise ValueError(
                f"{path!r} has its {name!r} as {kind} of {' x '.join(map(str, size))}, but {what} "
                f"{'floats' if kinds == 'f' else 'whole numbers'} are needed."
            )
        try:
            with np.load(path, allow_pickle=False) as file:
                found[name] = file[name]
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, MemoryError) as error:
            raise ValueError(f"{path!r} holds no sound array {name!r}.") from error
    return found
