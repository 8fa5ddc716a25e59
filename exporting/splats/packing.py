"""Steps that writers of several formats share: the order of Gaussians in a file, and rounding to bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scene.splats.table import Floats


def to_bytes(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Whole numbers from 0 to 255, the nearest ones."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def morton_order(means: Floats) -> NDArray[np.intp]:
    """An order [N] in which neighbours in the file are mostly neighbours in space: Morton's (1966) curve."""
    low, high = means.min(axis=0), means.max(axis=0)
    cells = ((means - low) / np.maximum(high - low, 1e-30) * 1023).astype(np.uint32)
    code = np.zeros(len(means), dtype=np.uint32)
    for bit in range(10):
        for axis in range(3):
            code |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    return np.argsort(code, kind="stable")
