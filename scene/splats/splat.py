"""`.splat`: antimatter15's viewer, 32 bytes for each Gaussian, without view dependence."""

from __future__ import annotations

import numpy as np

from scene.splats.table import Splats, harmonics_of_colors, log_scales_of

ROW = np.dtype(
    [("means", "<f4", 3), ("scales", "<f4", 3), ("color", "u1", 4), ("rotation", "u1", 4)], align=False
)


def decode(name: str, content: bytes) -> Splats:
    """The Gaussians of the file `name`. Raises ValueError, one sentence, for what is none."""
    if len(content) % ROW.itemsize:
        raise ValueError(
            f"{name!r} has {len(content)} bytes, but a .splat file has {ROW.itemsize} for each Gaussian."
        )
    rows = np.frombuffer(content, ROW)
    return Splats.of_file(
        means=rows["means"],
        log_scales=log_scales_of(name, rows["scales"]),
        rotations=(rows["rotation"].astype(np.float32) - 128) / 128,
        opacities=rows["color"][:, 3] / np.float32(255),
        harmonics=harmonics_of_colors(rows["color"][:, :3] / 255),
    )
