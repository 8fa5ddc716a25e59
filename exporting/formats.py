"""Formats by the end of a file's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from exporting.mesh import gltf as mesh_gltf
from exporting.mesh import obj
from exporting.mesh.textured import TexturedMesh
from exporting.splats import compressed_ply, gltf, sog, splat, spz
from scene.asset import Asset
from scene.axes import Y_DOWN, Y_UP, in_axes
from scene.ply import write_gaussians
from scene.splats.table import Splats
from utils.files import write_bytes


@dataclass(frozen=True)
class SplatFormat:
    """Format of files of Gaussians.

    axes: up and front of its files by default; encode: the whole file, or None for Inria's .ply, which the
    model itself writes.
    """

    axes: str
    encode: Callable[[Splats], bytes] | None


SPLATS = {
    ".compressed.ply": SplatFormat(Y_DOWN, compressed_ply.encode),
    ".ply": SplatFormat(Y_DOWN, None),
    ".splat": SplatFormat(Y_DOWN, splat.encode),
    ".sog": SplatFormat(Y_DOWN, sog.encode),
    ".spz": SplatFormat(Y_UP, spz.encode),
    ".splat.glb": SplatFormat(Y_UP, gltf.encode),
}
"""Formats of Gaussians by the end of a file's name; a longer end comes before its own end."""
MESHES = {".glb": Y_UP, ".obj": Y_UP}
"""Axes of textured meshes, by the end of a file's name."""


def suffix_of(path: Path) -> str:
    """The end of a file's name that is a format's. Raises ValueError, one sentence, for any other name."""
    known = sorted([*SPLATS, *MESHES], key=len, reverse=True)
    for suffix in known:
        if path.name.lower().endswith(suffix) and len(path.name) > len(suffix):
            return suffix
    raise ValueError(
        f"the output is {str(path)!r}, but its name must end in one of {', '.join(sorted(known))}."
    )


def write_splats(path: Path, asset: Asset, axes: str | None = None) -> None:
    """Write an asset in the format of the file's name, in its own axes or in others.

    The file notes them, if its format has room for that. An asset in them already is written as it is.

    Raises ValueError, one sentence, for a name of no format and for Gaussians that the format cannot hold.
    """
    form = SPLATS[suffix_of(path)]
    target = axes or form.axes
    turned = in_axes(asset.gaussians, target, asset.axes)
    if form.encode is None:
        write_gaussians(path, turned.raw(), target)
    else:
        write_bytes(path, form.encode(Splats.of(turned, target)))


def write_mesh(path: Path, mesh: TexturedMesh, axes: str | None = None) -> None:
    """Write a mesh in the format of the file's name, in its own axes or in others.

    Raises ValueError, one sentence, for a name of no format.
    """
    suffix = suffix_of(path)
    turned = mesh.in_axes(axes or MESHES[suffix])
    if suffix == ".obj":
        obj.write(path, turned)
    else:
        write_bytes(path, mesh_gltf.encode(turned))
