"""The colours of vertices and faces, by the names and in the ranges that programs write."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np
import torch

from utils.spherical_harmonics import dc_to_rgb

Array = np.ndarray
PREFIXES = ("", "diffuse_", "vertex_", "color_", "colour_", "col_", "albedo_", "scalar_", "ambient_")
CHANNELS = (("red", "green", "blue"), ("r", "g", "b"))
"""Names of the three channels, after one of PREFIXES, in letters of any case."""
PACKED = ("rgb", "rgba")
"""PCL's single property: the bits 0xRRGGBB, below those of alpha, as a whole number or as a float32."""
CONSTANT_HARMONICS = ("f_dc_0", "f_dc_1", "f_dc_2")
ROUNDING = 2.0
"""Floats up to this one count to 1 at the top, so that an overshoot makes nothing black."""
TOPS = (255, 65535)
"""Tops of larger numbers; floats may pass each by a hundredth."""


def colors_of(path: str, table: Array) -> tuple[Array | None, set[str]]:
    """Return colours [N, 3] in [0, 1] of a structured array [N], or None, and the names that they come from.

    A value that is not a number stays so. A warning reports each range that had to be guessed.
    """
    names = {name.lower(): name for name in reversed(table.dtype.names or ())}
    for prefix in PREFIXES:
        for channels in CHANNELS:
            if all(prefix + channel in names for channel in channels):
                found = [names[prefix + channel] for channel in channels]
                columns = [np.asarray(table[name]) for name in found]
                if all(column.dtype.kind in "iuf" for column in columns):
                    return unit_range(path, np.stack(columns, axis=1), found), set(found)
    for name in (names[packed] for packed in PACKED if packed in names):
        colors = _unpacked(np.asarray(table[name]))
        if colors is not None:
            return colors, {name}
    if all(name in names for name in CONSTANT_HARMONICS):
        found = [names[name] for name in CONSTANT_HARMONICS]
        constant = np.stack([np.asarray(table[name]).astype(np.float32) for name in found], axis=1)
        return dc_to_rgb(torch.from_numpy(constant)).clamp(0.0, 1.0).numpy(), set(found)
    return None, set()


def unit_range(path: str, values: Array, names: Iterable[str]) -> Array:
    """Scale colours [N, 3] of any kind of number to [0, 1].

    Whole numbers count to 255, or to the top of what their kind holds if some are larger. Floats count to 1, or
    to 255 or 65535 if some are clearly larger.
    """
    what = f"its colours ({', '.join(names)})"
    if values.dtype == np.int8:
        values = values.view(np.uint8)  # written as 'char' by programs that mean bytes
    known = values[np.isfinite(values) & (values <= 1.01 * TOPS[-1])] if values.dtype.kind == "f" else values
    greatest = float(known.max(initial=0))
    if values.dtype.kind == "f":
        top = float(next((top for top in (ROUNDING, *TOPS) if greatest <= 1.01 * top), TOPS[-1]))
        top, guessed = (1.0, greatest > 1.0) if top == ROUNDING else (top, True)
    else:
        limit = np.iinfo(values.dtype).max
        top = float(next((top for top in TOPS if greatest <= top <= limit), limit))
        # A byte is the rule, and the full range of two bytes its neighbour.
        guessed = greatest > 0 and (values.dtype, top) not in ((np.uint8, 255.0), (np.uint16, 65535.0))
    if guessed:
        logging.warning("%r: %s reach %g and are taken for 0 to %g.", path, what, greatest, top)
    elif values.dtype.kind != "f" and greatest == 1:
        logging.warning("%r: %s are 0 or 1, but are taken for 0 to %g: nearly black.", path, what, top)
    if bool((values < 0).any()):
        logging.warning("%r: %s are negative in places and are taken for 0 there.", path, what)
    return np.clip(values / top, 0.0, 1.0)


def _unpacked(values: Array) -> Array | None:
    """Colours [N, 3] of packed ones [N]; None for a kind of number that cannot hold them."""
    if values.dtype.kind == "f":
        finite = values[np.isfinite(values)]
        # The bits of a colour without alpha make a float of nearly 0, those with one mostly a vast number or a
        # fraction: whole numbers between are the colour itself.
        whole = len(finite) == len(values) > 0 and bool((finite == np.floor(finite)).all())
        if whole and finite.min() >= 0 and 1 <= finite.max() < 1 << 24:
            bits = values.astype(np.int64)
        else:
            bits = values.astype(np.float32).view(np.uint32).astype(np.int64)
    elif values.dtype.kind in "iu" and values.dtype.itemsize >= 4:
        bits = values.astype(np.int64)
    else:
        return None
    return np.stack([bits >> shift & 255 for shift in (16, 8, 0)], axis=1) / 255
