"""Render scenes forward and backward, for tools that watch: python -m gpu_steps.small_scene DEVICE large|small"""

from __future__ import annotations

import sys

import torch

from rasterizers import ours
from rasterizers.measure import back, forget
from rasterizers.scene import make_scene

SCENES = {
    "large": ((100_000, 4, 512, 32.0),),
    "small": ((200, 1, 64, 20.0), (1_000, 3, 80, 60.0), (3_000, 2, 48, 400.0)),
}
"""Gaussians, views, image side and mean footprint in pixels; the last small scene overfills its tiles."""


def main(device: str, size: str) -> None:
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic)
        for count, views, side, footprint in SCENES[size]:
            scene = make_scene(count, views, side, footprint, device)
            render = ours.prepare(scene, device)
            for _ in range(2):
                forget(scene)
                back(scene, render)
            sums = [float(leaf.grad.double().sum()) for leaf in scene.leaves if leaf.grad is not None]
            print(f"{count} Gaussians, {views} views of {side}²: {len(sums)} gradients", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
