"""`.usdc`, `.usda` and `.usdz`: Gaussians in USD as UsdVol's ParticleField3DGaussianSplat, read by the package usd-core."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scene.splats.gltf import placed
from scene.splats.table import MAX_COUNT, Splats, log_scales_of
from utils.axes import axes_of_note

KIND = "ParticleField3DGaussianSplat"
COEFFICIENTS = "radiance:sphericalHarmonicsCoefficients"
AXES = {"Y": "y,z", "Z": "z,-y"}
"""Axes of stages by the one that is up; the front is where Blender, Houdini and glTF have it."""


def read(path: Path) -> Splats:
    """The Gaussians of a file. Raises ValueError, one sentence, for what is none and without the package usd-core."""
    name = str(path)
    if importlib.util.find_spec("pxr") is None:
        raise ValueError(f'{name!r} is USD, which needs usd-core: python -m pip install -e ".[usd]".')
    from pxr import Tf, Usd, UsdGeom

    try:
        stage = Usd.Stage.Open(name)
    except Tf.ErrorException as error:
        raise ValueError(f"{name!r} cannot be read as USD.") from error
    prims = [prim for prim in stage.Traverse() if prim.GetTypeName() == KIND]
    if not prims:
        raise ValueError(f"{name!r} holds no {KIND}, but the Gaussians are read from there.")
    cache = UsdGeom.XformCache()
    parts = []
    for prim in prims:
        # USD's vectors are rows.
        matrix = np.array(cache.GetLocalToWorldTransform(prim)).T
        parts.append(placed(name, _splats(name, prim), matrix))
    up = str(UsdGeom.GetStageUpAxis(stage))
    return Splats.joined(parts, axes_of_note(dict(stage.GetRootLayer().customLayerData)) or AXES[up])


def _splats(name: str, prim: Any) -> Splats:
    """The Gaussians of a prim, in its own axes."""
    means = _values(prim, "positions", 3)
    count = len(means)
    if count > MAX_COUNT:
        raise ValueError(f"{name!r} holds more than the {MAX_COUNT} Gaussians that are read of a file.")
    degree = prim.GetAttribute("radiance:sphericalHarmonicsDegree").Get()
    if degree not in (0, 1, 2, 3):
        raise ValueError(f"{name!r} has harmonics of degree {degree}, but degree 0 to 3 are read.")
    columns = {
        "orientations": _values(prim, "orientations", 4),
        "scales": _values(prim, "scales", 3),
        "opacities": _values(prim, "opacities", 1),
        COEFFICIENTS: _values(prim, COEFFICIENTS, 3).reshape(-1, (degree + 1) ** 2 * 3),
    }
    for attribute, values in columns.items():
        if len(values) != count:
            raise ValueError(f"{name!r}: {attribute!r} has {len(values)} values for {count} Gaussians.")
    opacities = columns["opacities"][:, 0]
    if not ((opacities >= 0) & (opacities <= 1)).all():
        raise ValueError(f"{name!r} holds values of 'opacities' that are not in [0, 1].")
    return Splats.of_file(
        means=means,
        log_scales=log_scales_of(name, columns["scales"]),
        rotations=columns["orientations"][:, [3, 0, 1, 2]],
        opacities=opacities,
        harmonics=columns[COEFFICIENTS].reshape(count, -1, 3),
    )


def _values(prim: Any, attribute: str, width: int) -> NDArray[np.float64]:
    """Numbers [N, width] of an attribute, or of its variant of half precision, which counts where there is no other."""
    found = prim.GetAttribute(attribute).Get()
    if found is None or len(found) == 0:
        found = prim.GetAttribute(f"{attribute}h").Get()
    return np.zeros((0, width)) if found is None else np.array(found, np.float64).reshape(-1, width)
