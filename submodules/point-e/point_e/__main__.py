"""Command `python -m point_e "a corgi" -o corgi.ply`"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch

from point_e.cloud import check_target
from point_e.errors import PointEError, reason_of
from point_e.models import BASE_MODELS
from point_e.pipeline import load, open_image


def parser() -> argparse.ArgumentParser:
    it = argparse.ArgumentParser(
        prog="point_e", description="Make a coloured point cloud from text or an image."
    )
    it.add_argument("prompt", nargs="?", help="what the points are to show")
    it.add_argument("-o", "--output", required=True, metavar="FILE", help="a .ply or .npz file")
    it.add_argument(
        "--image", metavar="FILE", help="make points from an image instead; its object best on white"
    )
    names = ", ".join(BASE_MODELS)
    it.add_argument(
        "--model", help=f"{names}, the path of one's checkpoint, or a folder (openai, base40M with --image)"
    )
    it.add_argument("--clip", help="a folder with CLIP or an id on the hub (the model's own)")
    it.add_argument("--steps", type=int, help="of each of the two samplers (its own, 64)")
    it.add_argument("--guidance-scale", type=float, metavar="S", help="of the base model (its own)")
    it.add_argument("--seed", type=int, default=0, help="the same seed, the same points (0)")
    it.add_argument("--device", help="such as cpu or cuda (an accelerator if there is one)")
    it.add_argument("--offline", action="store_true", default=None, help="download nothing")
    return it


def run(args: argparse.Namespace) -> None:
    """Make what the command line names. Raises PointEError."""
    check_target(args.output)
    image = None if args.image is None else open_image(args.image)
    device = args.device or torch.accelerator.current_accelerator() or "cpu"
    model = args.model or ("openai" if args.image is None else "base40M")
    pipeline = load(model, clip=args.clip, device=device, offline=args.offline)
    options = {"seed": args.seed, "steps": args.steps}
    if image is not None:
        cloud = pipeline.from_image(image, guidance_scale=args.guidance_scale, **options)
    elif args.prompt is not None:
        cloud = pipeline.from_text(args.prompt, guidance_scale=args.guidance_scale, **options)
    else:
        cloud = pipeline.from_nothing(**options)
    cloud.save(args.output)
    print(f"{args.output}: {len(cloud.points)} points")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command: 0 if the file was written, 1 with one line on stderr if not, 2 for a command line that
    makes no sense.
    """
    arguments = parser()
    args = arguments.parse_args(argv)
    if args.prompt is not None and args.image is not None:
        arguments.error("give a prompt or --image, not both")
    if args.prompt is None and args.image is None and args.model is None:
        arguments.error("give a prompt, --image, or --model base40M-uncond")
    try:
        run(args)
    except PointEError as error:
        print(f"point_e: {error}", file=sys.stderr)
        return 1
    except torch.OutOfMemoryError as error:
        print(f"point_e: the device's memory is full ({reason_of(error)}).", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("point_e: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
