"""Formats by the end of a file's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exporting.mesh import gltf as mesh_gltf
from exporting.mesh import obj, package_3mf, plain
from exporting.mesh import usd as mesh_usd
from exporting.mesh.textured import TexturedMesh
from exporting.pose import Pose
from exporting.splats import compressed_ply, gltf, sog, splat, spz, spz_gltf
from exporting.splats import usd as splat_usd
from exporting.targets import PRINTED, SAME, Frame
from scene.asset import Asset
from scene.axes import OURS, Y_DOWN, in_axes
from scene.gaussian_model import GaussianModel
from scene.ply import write_gaussians
from scene.splats.table import Splats
from utils.files import write_bytes, write_text

DOWN = Frame(Y_DOWN)
AS_IT_IS = Pose()


@dataclass(frozen=True)
class WriteOptions:
    """Choices that some formats leave.

    Attributes:
        spz_version: version of .spz, 3 or 4.
        lit: whether a mesh has a material that light falls on.
        merge: whether a mesh is written without the seams of its texture.
    """

    spz_version: int = 3
    lit: bool = False
    merge: bool = False


USUAL = WriteOptions()


@dataclass(frozen=True)
class Writing:
    """A file to be written: where it is, the asset's name, axes and unit, and what was chosen."""

    path: Path
    name: str
    frame: Frame
    how: WriteOptions

    def write(self, content: bytes) -> str:
        """Write the whole file, of a format that drops nothing."""
        write_bytes(self.path, content)
        return ""


@dataclass(frozen=True)
class SplatFormat:
    """Format of files of Gaussians.

    frame: axes and unit of its files by default; write: writes the file, and those beside it; None is Inria's .ply,
    which the model itself writes; reach: largest magnitude of a harmonic above degree 0 that it holds.
    """

    frame: Frame
    write: Callable[[Splats, Writing], object] | None
    reach: float = float("inf")


@dataclass(frozen=True)
class MeshFormat:
    """Format of meshes.

    frame: axes and unit of its files by default; write: writes the file, and those beside it, of a mesh that is in its
    axes, and returns what it has no room for; merges: whether it can be without the seams of the texture; bends: whether it
    has room for a skin.
    """

    frame: Frame
    write: Callable[[TexturedMesh, Writing], str]
    merges: bool = False
    bends: bool = False


def _tiles(splats: Splats, to: Writing) -> None:
    write_text(to.path.with_name(f"{to.name}.tileset.json"), spz_gltf.tileset(splats, to.path.name))
    to.write(spz_gltf.encode(splats, to.name))


def _splat_usd(splats: Splats, to: Writing) -> None:
    splat_usd.write(to.path, splats, to.name, to.frame.unit)


def _mesh_usd(mesh: TexturedMesh, to: Writing) -> str:
    mesh_usd.write(to.path, mesh, to.name, to.frame.axes, to.frame.unit, to.how.lit)
    return ""


def _obj(mesh: TexturedMesh, to: Writing) -> str:
    obj.write(to.path, mesh, to.name)
    return "" if to.how.lit else "the unlit material"


SPLATS = {
    ".compressed.ply": SplatFormat(DOWN, lambda splats, to: to.write(compressed_ply.encode(splats)), 4.0),
    ".ply": SplatFormat(DOWN, None),
    ".splat": SplatFormat(DOWN, lambda splats, to: to.write(splat.encode(splats)), 0.0),
    ".sog": SplatFormat(DOWN, lambda splats, to: to.write(sog.encode(splats))),
    ".spz": SplatFormat(SAME, lambda splats, to: to.write(spz.encode(splats, to.how.spz_version)), 1.0),
    ".splat.glb": SplatFormat(SAME, lambda splats, to: to.write(gltf.encode(splats, to.name))),
    ".spz.glb": SplatFormat(SAME, _tiles, 1.0),
    ".splat.usdc": SplatFormat(SAME, _splat_usd),
    ".splat.usdz": SplatFormat(SAME, _splat_usd),
}
"""Formats of Gaussians by the end of a file's name."""
MESHES = {
    ".glb": MeshFormat(
        SAME, lambda mesh, to: to.write(mesh_gltf.encode(mesh, to.name, to.how.lit)), bends=True
    ),
    ".obj": MeshFormat(SAME, _obj),
    ".usdc": MeshFormat(SAME, _mesh_usd),
    ".usdz": MeshFormat(SAME, _mesh_usd),
    ".stl": MeshFormat(PRINTED, lambda mesh, to: plain.write_stl(to.path, mesh), merges=True),
    ".3mf": MeshFormat(PRINTED, lambda mesh, to: to.write(package_3mf.encode(mesh, to.name)), merges=True),
    ".mesh.ply": MeshFormat(
        Frame(OURS), lambda mesh, to: plain.write_ply(to.path, mesh, to.name, to.how.merge), merges=True
    ),
}
"""Formats of textured meshes, by the end of a file's name."""
USD = (".usdc", ".usdz", ".splat.usdc", ".splat.usdz")
"""Formats for which the package usd-core must be there."""


def known_suffix(path: Path) -> str | None:
    """The end of a file's name that is a format's, or None."""
    known = sorted([*SPLATS, *MESHES], key=len, reverse=True)
    return next((end for end in known if path.name.lower().endswith(end) and len(path.name) > len(end)), None)


def suffix_of(path: Path) -> str:
    """The end of a file's name that is a format's. Raises ValueError, one sentence, for any other name."""
    if (suffix := known_suffix(path)) is None:
        known = ", ".join(sorted([*SPLATS, *MESHES]))
        raise ValueError(f"the output is {str(path)!r}, but its name must end in one of {known}.")
    return suffix


def write_splats(
    path: Path, asset: Asset, frame: Frame | None = None, pose: Pose = AS_IT_IS, how: WriteOptions = USUAL
) -> str:
    """Write an asset in the format of the file's name, in its own axes and unit or in others.

    The file notes its axes, if its format has room for that. An asset in them already is written as it is, but for the
    pose, which is in metres. Returns what the format had no room for, or nothing.

    Raises ValueError, one sentence, for a name of no format and for Gaussians that the format cannot hold.
    """
    suffix = suffix_of(path)
    form = SPLATS[suffix]
    target = frame or form.frame
    turned = in_axes(asset.gaussians, target.axes, asset.axes)
    placed = pose.in_units(target.unit)
    if placed.changes:
        turned = GaussianModel(placed.gaussians(turned.state_dict(), target.axes))
    if form.write is None:
        write_gaussians(path, turned.raw(), target.axes)
        return ""
    splats = Splats.of(turned, target.axes)
    form.write(splats, Writing(path, path.name[: -len(suffix)], target, how))
    if form.reach == 0.0:
        return "" if splats.sh_degree == 0 else "view dependence"
    beyond = int(np.count_nonzero(np.abs(splats.harmonics[:, 1:]) > form.reach))
    return f"{beyond} harmonics cut to {form.reach:g}" if beyond else ""


def write_mesh(
    path: Path,
    mesh: TexturedMesh,
    frame: Frame | None = None,
    pose: Pose = AS_IT_IS,
    how: WriteOptions = USUAL,
) -> str:
    """Write a mesh in the format of the file's name, in its own axes and unit or in others; the pose is in metres.

    Returns what the format had no room for, or nothing. Raises ValueError, one sentence, for a name of no format.
    """
    suffix = suffix_of(path)
    form = MESHES[suffix]
    target = frame or form.frame
    placed = mesh.placed(target.axes, pose.in_units(target.unit))
    dropped = form.write(placed, Writing(path, path.name[: -len(suffix)], target, how))
    lost = ["the skin"] if mesh.rig is not None and not form.bends else []
    return " and ".join([*filter(None, [dropped]), *lost])
