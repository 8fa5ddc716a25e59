"""Run gsplat's CUDA rasterizer, by its public function."""

from __future__ import annotations

import torch
from torch import Tensor

from .peer import Images, Render
from .scene import Scene


def intrinsics(scene: Scene) -> Tensor:
    """Intrinsics [V, 3, 3]: gsplat's first pixel has its centre at 0.5, ours at 0."""
    cameras = scene.cameras
    matrices = torch.eye(3).repeat(len(cameras["viewmats"]), 1, 1).to(cameras["viewmats"])
    matrices[:, [0, 1], [0, 1]] = cameras["focals"]
    matrices[:, :2, 2] = cameras["principals"] + 0.5
    return matrices


def prepare(scene: Scene, packed: bool) -> Render:
    """The forward by gsplat. `packed` as its rasterization takes it: less memory, or less work."""
    from gsplat import rasterization
    from gsplat.cuda._backend import _C

    if _C is None:
        raise ImportError("gsplat has neither its compiled extension nor a CUDA toolkit to build it with")
    g, cameras, matrices = scene.gaussians, scene.cameras, intrinsics(scene)

    def render() -> Images:
        image, alpha, info = rasterization(
            g["means"],
            g["rotations"],
            g["scales"],
            g["opacities"],
            g["colors"],
            cameras["viewmats"],
            matrices,
            cameras["width"],
            cameras["height"],
            near_plane=cameras["near"],
            packed=packed,
            backgrounds=cameras["background"],
            render_mode="RGB+D",
        )
        info["means2d"].retain_grad()  # densification needs it, and ours always gives it
        image = image.movedim(-1, 1)
        return image[:, :3], image[:, 3:], alpha.movedim(-1, 1)

    return render
