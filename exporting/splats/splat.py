"""`.splat`: antimatter15's viewer, 32 bytes for each Gaussian, without view dependence."""

from __future__ import annotations

import numpy as np

from exporting.splats.packing import to_bytes
from scene.splats.splat import ROW
from scene.splats.table import Splats


def encode(splats: Splats) -> bytes:
    """The file, the largest and most opaque Gaussians first: viewers show what has arrived."""
    size = splats.log_scales.astype(np.float64).sum(axis=1)
    splats = splats.rows(np.argsort(-np.exp(size) * splats.opacities, kind="stable"))
    rows = np.empty(len(splats), dtype=ROW)
    rows["means"] = splats.means
    rows["scales"] = np.exp(splats.log_scales)
    rows["color"][:, :3] = to_bytes(splats.colors * 255)
    rows["color"][:, 3] = to_bytes(splats.opacities * 255)
    # (w, x, y, z), of which readers subtract 128 and divide by 128: 1 itself does not fit.
    rows["rotation"] = to_bytes(splats.rotations * 128 + 128)
    return rows.tobytes()
