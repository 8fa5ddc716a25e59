"""The skeleton of a body, for train.py --skeleton: joints in JSON, and the skin in an .npz file beside it.

  python -m scene.skeleton body.glb -o body.json                     of a skin in glTF 2.0: Mixamo, VRM, Blender
  python -m scene.skeleton SMPLX_NEUTRAL.npz -o body.json --pose a   of SMPL, SMPL-H or SMPL-X, in another pose

The .npz file holds the body in the pose that it has then, so it is the start that fits: --init_shape body.npz. It holds weights
of the body model, too, and stays under that model's licence.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import numpy as np

from scene.skeleton.file import write_skeleton
from scene.skeleton.gltf import read_gltf_skeleton
from scene.skeleton.openpose import keypoints_of
from scene.skeleton.posing import DROP, standing
from scene.skeleton.skeleton import Skeleton
from scene.skeleton.smpl import read_smpl_skeleton

READERS = {
    ".glb": read_gltf_skeleton,
    ".gltf": read_gltf_skeleton,
    ".vrm": read_gltf_skeleton,
    ".npz": read_smpl_skeleton,
}


def main(argv: list[str] | None = None) -> int:
    """Read, pose and write a skeleton; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m scene.skeleton",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, metavar="BODY", help=f"a {', '.join(READERS)} file")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.json", help="where it goes")
    parser.add_argument(
        "--pose",
        choices=[*DROP],
        help="t: arms level; a: arms 45 degrees lower (default: as the file has it)",
    )
    given = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        convert(given.source, given.output, given.pose)
    except (ValueError, OSError) as error:
        print(f"scene.skeleton: {error}", file=sys.stderr)
        return 1
    return 0


def convert(source: Path, output: Path, pose: str | None) -> None:
    """Write the skeleton of a body. Raises ValueError and OSError, one sentence each."""
    if output.suffix.lower() != ".json" or output.with_suffix(".npz") == source:
        raise ValueError(
            f"the output is {str(output)!r}, but must be a .json file, whose skin, of the same name, is not the source."
        )
    skeleton = read(source)
    try:
        skeleton = skeleton if pose is None else standing(skeleton, pose)
    except ValueError as error:
        raise ValueError(f"{str(source)!r}: {error}.") from error
    write_skeleton(output, skeleton)
    assert skeleton.skin is not None
    found = keypoints_of(skeleton)
    notes = [f"keypoints without a joint: {', '.join(found.missing)}"] if found.missing else []
    notes += [f"by an average head: {', '.join(found.assumed)}"] if found.assumed else []
    logging.info(
        "%s: %d joints, and %s with a skin of %d vertices; %s. To start from it: --init_shape %s --skeleton %s",
        *(output, len(skeleton.names), output.with_suffix(".npz").name, len(skeleton.skin.vertices)),
        "; ".join(notes) or "all 18 keypoints are found",
        *(output.with_suffix(".npz"), output),
    )


def read(source: Path) -> Skeleton:
    """Read a skeleton by the end of a file's name. Raises ValueError and OSError, one sentence each."""
    if source.suffix.lower() == ".pkl":
        raise ValueError(
            f"{str(source)!r} is a pickle, which is not read, for pickles run code: docs/steering.md shows how to make it an .npz file."
        )
    reader = READERS.get(source.suffix.lower())
    if reader is None:
        raise ValueError(f"{str(source)!r} is no body that is read here: give a {', '.join(READERS)} file.")
    if not source.is_file():
        raise FileNotFoundError(f"{str(source)!r} is not there, but it must be a body.")
    try:
        found = reader(str(source))
        found.in_order()
        assert found.skin is not None
        if not np.isfinite(found.positions).all() or not np.isfinite(found.skin.vertices).all():
            raise ValueError("it has places that are not finite")
        return found
    except Exception as error:  # readers raise whatever their parsing runs into
        reason = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
        if isinstance(error, ValueError) and reason.startswith(repr(str(source))):
            raise ValueError(f"{reason}.") from error
        raise ValueError(f"{str(source)!r} cannot be read as a body: {reason}.") from error


if __name__ == "__main__":
    sys.exit(main())
