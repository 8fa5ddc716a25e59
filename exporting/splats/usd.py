"""`.splat.usdc` and `.splat.usdz`: Gaussians in USD as UsdVol's ParticleField3DGaussianSplat, in full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from exporting import usd
from scene.splats.table import Splats

REACH = 3.0
"""Standard deviations that the extent takes in."""


def write(path: Path, splats: Splats, name: str, unit: float) -> None:
    """Write the file of Gaussians, whose axes are noted and whose unit is this one."""
    assert splats.axes is not None

    def fill(stage: Any, root: str, folder: Path) -> None:
        from pxr import UsdVol

        field = UsdVol.ParticleField3DGaussianSplat.Define(stage, f"{root}/splats")
        prim = field.GetPrim()
        scales = np.exp(splats.log_scales)
        reach = REACH * scales.max(axis=1, keepdims=True)
        extent = [(splats.means - reach).min(axis=0), (splats.means + reach).max(axis=0)]
        values = {
            "extent": usd.vectors("Vec3fArray", np.stack(extent)),
            "positions": usd.vectors("Vec3fArray", splats.means),
            # NumPy's side of USD has them as (x, y, z, w).
            "orientations": usd.vectors("QuatfArray", splats.rotations[:, [1, 2, 3, 0]]),
            "scales": usd.vectors("Vec3fArray", scales),
            "opacities": usd.vectors("FloatArray", splats.opacities),
            "radiance:sphericalHarmonicsDegree": splats.sh_degree,
            "radiance:sphericalHarmonicsCoefficients": usd.vectors(
                "Vec3fArray", splats.harmonics.reshape(-1, 3)
            ),
            # As they are rendered here.
            "projectionModeHint": "perspective",
            "sortingModeHint": "zDepth",
        }
        for attribute, value in values.items():
            prim.GetAttribute(attribute).Set(value)

    usd.write(path, splats.axes, unit, name, fill)
