"""USD files by the package usd-core: a stage with its axes and unit, alone (.usdc) or with its pictures in a package
(.usdz)."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.axes import note, parts
from utils.files import atomic_path

UP_AXES = {"y": "Y", "z": "Z"}


def write(path: Path, axes: str, unit: float, name: str, fill: Callable[[Any, str, Path], None]) -> None:
    """Write a .usdc or .usdz file.

    fill is given the stage, the path of its root prim, which is called like the asset, and a folder for the pictures
    of a .usdz; those of a .usdc lie beside it. unit: units of the file in a metre.

    Raises ValueError, one sentence, for axes that USD does not have.
    """
    from pxr import Sdf, Usd, UsdGeom, UsdUtils

    up, _, left_handed = parts(axes)
    if up not in UP_AXES or left_handed:
        raise ValueError(f"axes is {axes!r}, but USD has right-handed axes with y or z up.")
    packed = path.suffix.lower() == ".usdz"
    with tempfile.TemporaryDirectory() as folder:
        layer = Path(folder, "asset.usdc")
        stage = Usd.Stage.CreateNew(str(layer))
        UsdGeom.SetStageUpAxis(stage, UP_AXES[up])
        UsdGeom.SetStageMetersPerUnit(stage, 1 / unit)
        stage.GetRootLayer().customLayerData = note(axes)
        root = f"/{prim_name(name)}"
        stage.SetDefaultPrim(stage.DefinePrim(Sdf.Path(root), "Xform"))
        fill(stage, root, Path(folder) if packed else path.parent)
        stage.Save()
        with atomic_path(path) as temporary:
            if packed:
                if not UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(layer)), str(temporary)):
                    raise OSError(f"{str(path)!r} cannot be written by usd-core.")
            else:
                temporary.write_bytes(layer.read_bytes())


def prim_name(name: str) -> str:
    """A name with nothing but letters, digits and underscores, as prims have it; it begins with no digit."""
    return re.sub(r"^(?=\d)|[^A-Za-z0-9_]", "_", name) or "_"


def vectors(kind: str, values: NDArray[np.floating]) -> Any:
    """An array of USD's kind, such as Vec3fArray, of float32 values."""
    from pxr import Vt

    return getattr(Vt, kind).FromNumpy(np.ascontiguousarray(values, dtype=np.float32))
