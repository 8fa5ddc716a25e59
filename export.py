"""An asset for other programs: Gaussians in their formats, or a textured mesh.

  python export.py outputs/quickstart/a-red-mug-... -o mug.glb                    a mesh with a texture
  python export.py asset.ply -o mug.splat.glb mug.spz mug.sog mug.compressed.ply  Gaussians
  python export.py asset.ply -o mug.obj --faces 5000 --texture 2048

The name tells the format:
  .ply .compressed.ply .splat .spz .sog    Gaussians, for viewers, editors and engines of them
  .splat.glb                               Gaussians in glTF (KHR_gaussian_splatting)
  .glb .obj                                a closed triangle mesh with one texture, unlit, for everything else
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from exporting.axes import parse_axes
from exporting.formats import SPLATS, suffix_of, write_splats
from exporting.source import load_asset


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python export.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("asset", type=Path, metavar="RUN_OR_PLY", help="a run's folder, or a .ply file of Gaussians")
    add("-o", "--output", nargs="+", type=Path, required=True, metavar="FILE", help="one or more files")
    add(
        "--axes", metavar="UP,FRONT", help="directions in the files, such as z,x (default: each format's own)"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    given = arguments(argv)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
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
    suffixes = [suffix_of(path) for path in given.output]
    gaussians = load_asset(given.asset)
    for path, suffix in zip(given.output, suffixes):
        if suffix in SPLATS:
            write_splats(path, gaussians, axes)
            logging.info("%s: %d Gaussians, %d kB", path, len(gaussians), path.stat().st_size // 1000)


if __name__ == "__main__":
    sys.exit(main())
