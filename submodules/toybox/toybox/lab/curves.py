"""`python -m toybox.lab.curves`: the training curves of `python -m toybox.lab.train`, as one small picture."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from utils.curves import Curve, svg
from utils.event_log import scalars_in
from utils.files import write_text

CURVES = {
    "text": ("text/loss", "text encoder: squared error"),
    "vae": ("vae/psnr", "autoencoder: PSNR of a batch, dB"),
    "unet": ("unet/loss", "U-Net: weighted squared error"),
    "flow": ("flow/loss", "flow: squared error of velocities"),
    "multiview": ("multiview/loss", "four views: weighted squared error"),
    "controlnet-depth": ("controlnet-depth/loss", "depth ControlNet: weighted squared error"),
    "image-encoder": ("image-encoder/loss", "image encoder: squared error"),
    "image-prompt": ("image-prompt/loss", "image prompt: weighted squared error"),
    "small-encoder": ("small-encoder/gradient", "small encoder: squared error of gradients"),
    "judge": ("judge/accuracy", "judge: accuracy on a batch"),
    "point-e": ("point-e/loss", "Point-E: squared error"),
}
LOGARITHMIC = tuple(tag for tag, _ in CURVES.values() if tag.endswith("/loss"))


def read(folder: Path) -> list[Curve]:
    """The curves logged under `folder`/logs. Raises FileNotFoundError where there is none."""
    curves = []
    for name, (tag, title) in CURVES.items():
        if not (folder / "logs" / name).is_dir():
            continue
        if points := scalars_in(folder / "logs" / name).get(tag):
            steps = np.array(sorted(points), dtype=float)
            values = np.array([points[int(step)] for step in steps])
            curves.append(Curve(title, steps, values, tag in LOGARITHMIC))
    if not curves:
        raise FileNotFoundError(
            f"{folder / 'logs'} holds no training logs; python -m toybox.lab.train writes them"
        )
    return curves


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m toybox.lab.curves", description=__doc__)
    parser.add_argument("work", type=Path, help="the --work folder of the training")
    parser.add_argument("-o", "--out", type=Path, default=Path("curves.svg"), help="the picture, SVG")
    arguments = parser.parse_args()
    try:
        write_text(arguments.out, svg(read(arguments.work)))
    except FileNotFoundError as error:
        raise SystemExit(f"python -m toybox.lab.curves: {error}") from None


if __name__ == "__main__":
    main()
