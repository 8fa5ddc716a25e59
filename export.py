"""An asset for other programs: Gaussians in their formats, or a textured mesh.

  python export.py outputs/quickstart/a-red-mug-... -o mug.glb                    a mesh with a texture
  python export.py asset.ply -o mug.splat.glb mug.spz mug.sog mug.compressed.ply  Gaussians
  python export.py asset.ply -o mug.obj --faces 5000 --texture 2048
  python export.py mug.splat -o mug.glb                                           from another program

The name tells the format:
  .ply .compressed.ply .splat .spz .sog    Gaussians, for their viewers, editors and engines
  .splat.glb                               Gaussians in glTF (KHR_gaussian_splatting)
  .glb .obj                                a triangle mesh with one texture, unlit, for everything else

Files of Gaussians in any of these formats are read, too. Axes are those of each format: y up and z to the front, but
y down and z to the back in .ply, .compressed.ply, .splat and .sog. An asset.ply of a run itself has z up and x to the front:
--axes z,x. What is written here has a note of its axes where its format has room, which is read back. A .ply file
without one is taken as a run's, others as usual in their format: --input_axes names other axes.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from exporting.formats import MESHES, SPLATS, suffix_of, write_mesh, write_splats
from exporting.mesh.options import MeshOptions
from scene.asset import FORMATS, open_asset
from scene.axes import parse_axes
from utils.axes import attached
from utils.device import resolve_device
from utils.numbers import whole_number

if TYPE_CHECKING:
    from exporting.mesh.textured import TexturedMesh
    from scene.gaussian_model import GaussianModel

LIBRARIES = {"skimage": "scikit-image", "xatlas": "xatlas", "fast_simplification": "fast-simplification"}
"""Libraries of the extra `mesh`, by module: the package's name."""


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python export.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("asset", type=Path, metavar="RUN_OR_FILE", help=f"a run's folder, or Gaussians: {FORMATS}")
    add("-o", "--output", nargs="+", type=Path, required=True, metavar="FILE", help="one or more files")
    add(
        "--axes", metavar="UP,FRONT", help="directions in the files, such as z,x (default: each format's own)"
    )
    add(
        "--input_axes",
        metavar="UP,FRONT",
        help="directions in what is read, such as -y,-z (default: its note)",
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
    suffixes = [suffix_of(path) for path in given.output]
    if any(suffix in MESHES for suffix in suffixes):
        needs_libraries()
    for path in given.output:
        # Before the work, which may take a minute.
        path.parent.mkdir(parents=True, exist_ok=True)
    device = resolve_device(given.device)
    asset = open_asset(given.asset, input_axes)
    for path, suffix in zip(given.output, suffixes):
        if suffix in SPLATS:
            write_splats(path, asset, axes)
            logging.info("%s: %d Gaussians, %s", path, len(asset.gaussians), size_of(path))
    meshes = [path for path, suffix in zip(given.output, suffixes) if suffix in MESHES]
    if not meshes:
        return
    mesh = mesh_of(asset.upright(device), given)
    for path in meshes:
        write_mesh(path, mesh, axes)
        logging.info("%s: %d faces, %s", path, len(mesh.faces), size_of(path))
    logging.info(closedness(mesh))


def needs_libraries() -> None:
    """Check that the libraries are there which only meshes need.

    Raises ValueError, one sentence, if one is missing.
    """
    missing = [name for module, name in LIBRARIES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ValueError(f'a mesh needs {" and ".join(missing)}: python -m pip install -e ".[mesh]".')


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
        return "The mesh is watertight."
    x, y, z = mesh.open_edges[0].tolist()
    return (
        f"The mesh is not watertight: {len(mesh.open_edges)} edges do not have two faces, "
        f"the first one at ({x:.3g}, {y:.3g}, {z:.3g}) of the asset's own axes."
    )


def size_of(path: Path) -> str:
    """Size of a file in megabytes, as text."""
    return f"{path.stat().st_size / 1e6:.2g} MB"


if __name__ == "__main__":
    sys.exit(main())
