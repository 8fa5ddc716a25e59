"""Coloured point clouds and the two kinds of files that they are written to."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyElement
from torch import Tensor

from point_e.errors import PointEError, reason_of


@dataclass(frozen=True)
class PointCloud:
    """Points [N, 3] in Point-E's space (z up, about [-0.5, 0.5]) and colours [N, 3] in [0, 1]; float32, on the host."""

    points: Tensor
    colors: Tensor

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a .ply or .npz file, whole or not at all; the same cloud gives the same bytes.

        .ply: binary little endian, x, y, z as float32 and red, green, blue as uchar. .npz: `coords` [N, 3] and `R`,
        `G`, `B` [N] in [0, 1], which OpenAI's `PointCloud.load` reads.
        Raises PointEError as `check_target` does, and for values that are not finite.
        """
        check_target(path)
        if not bool(torch.isfinite(self.points).all() and torch.isfinite(self.colors).all()):
            raise PointEError(
                f"{str(path)!r} was not written, since the point cloud has values that are not finite."
            )
        final = Path(path)
        temporary = final.with_name(f".{final.stem}.{os.getpid()}.tmp{final.suffix}")
        try:
            _WRITERS[final.suffix.lower()](self, temporary)
            os.replace(temporary, final)
        except OSError as error:
            raise PointEError(f"{str(path)!r} cannot be written: {reason_of(error)}.") from error
        finally:
            temporary.unlink(missing_ok=True)


def check_target(path: str | os.PathLike[str]) -> None:
    """Check that `path` is a .ply or .npz file in a folder that can be written to, else PointEError.

    The folder is made if it is missing.
    """
    final = Path(path)
    if final.suffix.lower() not in _WRITERS:
        known = " or ".join(_WRITERS)
        raise PointEError(f"the output {str(path)!r} must end in {known}, but ends in {final.suffix!r}.")
    if final.is_dir():
        raise PointEError(f"the output {str(path)!r} is a folder, but it must be a file.")
    try:
        if not final.parent.exists():
            final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=final.parent):
            pass
    except OSError as error:
        raise PointEError(f"the output {str(path)!r} cannot be written: {reason_of(error)}.") from error


def _write_ply(cloud: PointCloud, path: Path) -> None:
    names = ("x", "y", "z", "red", "green", "blue")
    vertices = np.empty(len(cloud.points), dtype=list(zip(names, ["<f4"] * 3 + ["u1"] * 3)))
    colors = (255.0 * cloud.colors).round().to(torch.uint8)
    for name, column in zip(names, [*cloud.points.unbind(1), *colors.unbind(1)]):
        vertices[name] = column.numpy()
    PlyData([PlyElement.describe(vertices, "vertex")], text=False, byte_order="<").write(str(path))


def _write_npz(cloud: PointCloud, path: Path) -> None:
    red, green, blue = (column.numpy() for column in cloud.colors.unbind(1))
    with path.open("wb") as file:  # numpy would add its own suffix to a name
        np.savez(file, coords=cloud.points.numpy(), R=red, G=green, B=blue)


_WRITERS: dict[str, Callable[[PointCloud, Path], None]] = {".ply": _write_ply, ".npz": _write_npz}
