"""An asset for other programs: Gaussians in their formats, or a textured mesh.

  python export.py outputs/quickstart/a-red-mug-... -o mug.glb                    a mesh with a texture
  python export.py asset.ply -o mug.splat.glb mug.spz mug.sog mug.compressed.ply  Gaussians
  python export.py asset.ply -o mug.obj --faces 5000 --texture 2048
  python export.py asset.ply -o mug --for spark                                   what a program takes best
  python export.py asset.ply -o mug.3mf --size 12cm --ground                      for a printer
  python export.py mug.splat -o mug.glb                                           from another program

The name tells the format:
  .ply .compressed.ply .splat .spz .sog    Gaussians, for their viewers, editors and engines
  .splat.glb .splat.usdz .splat.usdc       Gaussians in glTF (KHR_gaussian_splatting) and in USD
  .spz.glb                                 Gaussians in glTF for Cesium, with their .tileset.json
  .glb .obj .usdz .usdc                    a triangle mesh with one texture, for everything else; of a run with
                                           --skeleton, the .glb has a skin, and bends
  .stl .3mf .mesh.ply                      the mesh for printers and for research

Files of Gaussians in any of these formats are read, too. Axes are those of each format: y up and z to the front, but
y down and z to the back in .ply, .compressed.ply, .splat and .sog. --for has those of a program. An asset.ply of a run
itself has z up and x to the front: --axes z,x. What is written here has a note of its axes where its format has room,
which is read back. A .ply file without one is taken as a run's, others as usual in their format: --input_axes names
other axes.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from exporting.formats import (
    MESHES,
    SPLATS,
    USD,
    WriteOptions,
    known_suffix,
    suffix_of,
    write_mesh,
    write_splats,
)
from exporting.mesh.options import MeshOptions
from exporting.pose import Pose, bounds_of, pose_for
from exporting.splats.spz import VERSIONS
from exporting.targets import TARGETS, Frame, frame_for, length
from scene.asset import FORMATS, open_asset, run_of
from scene.axes import parse_axes
from scene.skeleton.file import read_skeleton
from utils.axes import attached
from utils.device import resolve_device
from utils.numbers import whole_number

if TYPE_CHECKING:
    from exporting.mesh.textured import TexturedMesh
    from scene.gaussian_model import GaussianModel

LIBRARIES = {"skimage": "scikit-image", "xatlas": "xatlas", "fast_simplification": "fast-simplification"}
"""Libraries of the extra `mesh`, by module: the package's name."""
USD_LIBRARIES = {"pxr": "usd-core"}
"""The same of the extra `usd`."""


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python export.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("asset", type=Path, metavar="RUN_OR_FILE", help=f"a run's folder, or Gaussians: {FORMATS}")
    add("-o", "--output", nargs="+", type=Path, required=True, metavar="FILE", help="one or more files")
    add(
        "--for",
        dest="program",
        choices=TARGETS,
        metavar="PROGRAM",
        help=f"format, if the name has none, axes, handedness and unit for one of {', '.join(TARGETS)}",
    )
    add(
        "--axes",
        metavar="UP,FRONT",
        help="directions in the files, such as z,x, or y,z,left for left-handed ones (default: each format's own)",
    )
    add(
        "--input_axes",
        metavar="UP,FRONT",
        help="directions in what is read, such as -y,-z (default: its note)",
    )
    add(
        "--size",
        metavar="LENGTH",
        help="longest side, such as 0.3m or 30cm (default: a world unit is a metre)",
    )
    add("--ground", action="store_true", help="put the lowest point at height 0")
    add(
        "--spz_version", type=int, choices=VERSIONS, default=VERSIONS[0], help="version of .spz (%(default)s)"
    )
    add("--quiet", action="store_true", help="no progress bar, and nothing but warnings and errors")
    mesh = parser.add_argument_group("meshes")
    add = mesh.add_argument
    mesh.set_defaults(**vars(MeshOptions()))
    for name, (low, high), meaning in (
        ("faces", (100, 1_000_000), "at most"),
        ("texture", (64, 8192), "texels along a side"),
        (
            "resolution",
            (16, 512),
            "steps of the grid on which the surface is found, along the asset's longest side",
        ),
        ("views", (8, 1000), "cameras all around"),
    ):
        add(f"--{name}", type=whole_number(low, high), metavar="N", help=f"{meaning} (%(default)s)")
    add(
        "--lit",
        action="store_true",
        help="a matt material that light falls on, not one that shows colours as they are",
    )
    add(
        "--merge",
        action="store_true",
        help="no seams, for .stl, .3mf and .mesh.ply, which then has colours of vertices",
    )
    add("--device", default="auto", help="what renders them: auto, or a name that torch knows (auto)")
    return parser.parse_args(attached(sys.argv[1:] if argv is None else argv))


def main(argv: list[str] | None = None) -> int:
    given = arguments(argv)
    logging.basicConfig(format="%(message)s", level=logging.WARNING if given.quiet else logging.INFO)
    try:
        export(given)
    except KeyboardInterrupt:
        print("Interrupted: files that were not told of are as they were.", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"export.py: {error}", file=sys.stderr)
        return 1
    return 0


def export(given: argparse.Namespace) -> None:
    axes = None if given.axes is None else parse_axes(given.axes)
    input_axes = None if given.input_axes is None else parse_axes(given.input_axes, "input_axes")
    size = None if given.size is None else length(given.size)
    how = WriteOptions(given.spz_version, given.lit, given.merge)
    frames: dict[Path, Frame] = {}
    for path in given.output:
        path = named(path, given.program)
        frames[path] = chosen_frame(suffix_of(path), given.program, axes)
    meshes = [path for path in frames if suffix_of(path) in MESHES]
    for path in meshes:
        if how.merge and not MESHES[suffix_of(path)].merges:
            able = ", ".join(suffix for suffix, form in MESHES.items() if form.merges)
            raise ValueError(f"{str(path)!r} needs seams for its texture: --merge is for {able}.")
    if meshes:
        needs_libraries("a mesh", LIBRARIES, "mesh")
    if any(suffix_of(path) in USD for path in frames):
        needs_libraries("USD", USD_LIBRARIES, "usd")
    for path in frames:
        # Before the work, which may take a minute.
        path.parent.mkdir(parents=True, exist_ok=True)
    device = resolve_device(given.device)
    asset = open_asset(given.asset, input_axes)
    run = run_of(given.asset)
    # Before minutes of work on a mesh.
    skeleton = read_skeleton(str(run.skeleton)) if meshes and run and run.skeleton.is_file() else None
    mesh = mesh_of(asset.upright(device), given) if meshes else None
    if mesh is not None and skeleton is not None:
        mesh = mesh.bound(skeleton)
        whence = "those of its body" if skeleton.skin else "by the distance to their bones"
        logging.info("The mesh has a skin of %d joints, whose weights are %s.", len(skeleton.names), whence)
    pose = Pose()
    if size is not None or given.ground:
        bounds = bounds_of(asset.upright()) if mesh is None else mesh.bounds
        pose = pose_for(bounds, size, given.ground)
    for path, frame in frames.items():
        if suffix_of(path) in SPLATS:
            what = f"{len(asset.gaussians)} Gaussians"
            dropped = write_splats(path, asset, frame, pose, how)
        else:
            assert mesh is not None
            what = f"{len(mesh.faces)} faces"
            dropped = write_mesh(path, mesh, frame, pose, how)
        program = "" if given.program is None else f"for {given.program}: "
        without = f"; without {dropped}" if dropped else ""
        logging.info("%s: %s, %s; %s%s%s", path, what, size_of(path), program, frame, without)
    if mesh is not None:
        logging.info(closedness(mesh))


def named(path: Path, program: str | None) -> Path:
    """An output's path, with the end of the first format of a program if its name has none."""
    if program is None or known_suffix(path) is not None:
        return path
    return path.with_name(path.name + next(iter(TARGETS[program])))


def chosen_frame(suffix: str, program: str | None, axes: str | None) -> Frame:
    """Axes and unit of a file: those of a program or of its format, or other axes.

    Raises ValueError, one sentence, for a format that the program does not take.
    """
    form = SPLATS.get(suffix) or MESHES[suffix]
    frame = form.frame if program is None else frame_for(program, suffix)
    return frame if axes is None else Frame(axes, frame.unit)


def needs_libraries(what: str, libraries: dict[str, str], extra: str) -> None:
    """Check that the libraries of an extra are there which only some formats need.

    Raises ValueError, one sentence, if one is missing.
    """
    missing = [name for module, name in libraries.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ValueError(f'{what} needs {" and ".join(missing)}: python -m pip install -e ".[{extra}]".')


def mesh_of(gaussians: GaussianModel, given: argparse.Namespace) -> TexturedMesh:
    from exporting.mesh.build import build_mesh

    options = MeshOptions(given.faces, given.texture, given.resolution, given.views)
    with tqdm(total=options.steps, unit="view", disable=given.quiet) as bar:

        def on_step(doing: str) -> None:
            bar.set_description(doing, refresh=False)
            bar.update()

        return build_mesh(gaussians, options, on_step)


def closedness(mesh: TexturedMesh) -> str:
    """Sentence on whether a mesh is watertight, with the first place where it is not."""
    if len(mesh.open_edges) == 0:
        return "The mesh is watertight after merging seams."
    x, y, z = mesh.open_edges[0].tolist()
    return (
        f"The mesh is not watertight after merging seams: {len(mesh.open_edges)} edges do not have two faces, "
        f"the first one at ({x:.3g}, {y:.3g}, {z:.3g}) of the asset's own axes."
    )


def size_of(path: Path) -> str:
    """Size of a file in megabytes, as text."""
    return f"{path.stat().st_size / 1e6:.2g} MB"


if __name__ == "__main__":
    sys.exit(main())
