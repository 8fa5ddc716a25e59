"""The surface of a shape in pictures: where it is, how far away, and which way it faces."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gaussian_renderer import Gaussians, RenderOutput, render
from scene.cameras import Cameras
from utils.spherical_harmonics import rgb_to_dc

SMOOTHING = 1.5
"""Standard deviation in pixels of the blur of a depth whose slope is taken for the surface's."""
GRAZING = 0.1
"""Cosine between ray and normal below which a plane says nothing of the depth."""


@dataclass(frozen=True)
class Surface:
    """V views of H × W pixels of a shape.

    Attributes:
        covered: [V, 1, H, W] bool, whether it is there: at least half of the pixel.
        depth: [V, 1, H, W] along the camera's axis, in world units; without a meaning beside the shape.
        normals: [V, 3, H, W] of unit length in the view's axes: x right, y up, z to the viewer, who is faced. Beside the
            shape they are (0, 0, 1).
        rgb: [V, 3, H, W] colours over grey.
    """

    covered: Tensor
    depth: Tensor
    normals: Tensor
    rgb: Tensor

    def mirrored(self) -> Surface:
        """Return what is seen of the mirrored shape: left and right are exchanged, and what faces right faces left."""
        flipped = {name: image.flip(-1) for name, image in vars(self).items()}
        x, y, z = flipped["normals"].split(1, dim=1)
        return replace(self, **flipped | {"normals": torch.cat([-x, y, z], dim=1)})


@torch.no_grad()
def surface(gaussians: Gaussians, normals: Tensor | None, cameras: Cameras) -> Surface:
    """Render the surface of Gaussians that cameras on their device see; nothing waits for that.

    What has normals [N, 3] is seen as planes: a pixel's depth is where it looks through the mean plane of all Gaussians that
    are seen in it. Otherwise its depth is their mean, and normals are those of its slope.
    """
    rays = _rays(cameras)
    grey = torch.full((3,), 0.5, device=gaussians.means.device)

    def render_over_grey(**colors: Any) -> RenderOutput:
        return render(gaussians, cameras, grey, antialiasing=True, **colors)

    def mean(values: Tensor) -> Tensor:
        """Sum [V, 3, H, W] of vectors [N, 3] in [-1, 1] by their weights: as colours, whose grey is 0."""
        return 2 * render_over_grey(sh_degree=0, shs=rgb_to_dc(0.5 + 0.5 * values)[:, None]).rgb - 1

    out = render_over_grey()
    covered, alpha = out.alpha >= 0.5, out.alpha.clamp_min(0.5)
    depth = out.depth / alpha
    if normals is None:
        across = _slope(depth, covered, rays)
    else:
        turn, shift = cameras.viewmats[:, :3, :3], cameras.viewmats[:, :3, 3, None, None]
        across = F.normalize(torch.einsum("vij,vjhw->vihw", turn, mean(normals)), dim=1)
        reach = gaussians.means.abs().amax()
        place = torch.einsum("vij,vjhw->vihw", turn, mean(gaussians.means / reach) * reach / alpha) + shift
        slant = (across * rays).sum(1, keepdim=True)
        steep = slant.abs() > GRAZING * rays.norm(dim=1, keepdim=True)
        depth = torch.where(steep, (across * place).sum(1, keepdim=True) / slant, depth)
    facing = torch.where((across * rays).sum(1, keepdim=True) > 0, -across, across)
    x, y, z = F.normalize(facing, dim=1).split(1, dim=1)
    # From the camera's axes: x right, y down, z forward.
    outward = torch.cat([x, -y, -z], dim=1)
    ahead = torch.cat([torch.zeros_like(x), torch.zeros_like(x), torch.ones_like(x)], dim=1)
    return Surface(covered, depth, torch.where(covered, outward, ahead), out.rgb)


def _rays(cameras: Cameras) -> Tensor:
    """Directions [V, 3, H, W] that pixels look in, in the camera's axes, as long as the depth is 1."""
    device = cameras.focals.device
    rows, columns = (torch.arange(size, device=device) for size in (cameras.height, cameras.width))
    x = (columns - cameras.principals[:, :1]) / cameras.focals[:, :1]
    y = (rows - cameras.principals[:, 1:]) / cameras.focals[:, 1:]
    x, y = torch.broadcast_tensors(x[:, None, :], y[:, :, None])
    return torch.stack([x, y, torch.ones_like(x)], dim=1)


def _slope(depth: Tensor, covered: Tensor, rays: Tensor) -> Tensor:
    """Directions [V, 3, H, W] across the surface of a depth, of any length, in the camera's axes."""
    weights = covered.to(depth)
    smooth = blurred(weights * depth, SMOOTHING) / blurred(weights, SMOOTHING).clamp_min(1e-6)
    places = F.pad(smooth * rays, (1, 1, 1, 1), mode="replicate")
    right = places[..., 1:-1, 2:] - places[..., 1:-1, :-2]
    down = places[..., 2:, 1:-1] - places[..., :-2, 1:-1]
    return torch.linalg.cross(down, right, dim=1)


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Blur images [V, C, H, W] by a Gaussian of standard deviation `sigma` pixels."""
    reach = int(3 * sigma)
    offsets = torch.arange(-reach, reach + 1, device=images.device)
    kernel = torch.softmax(-(offsets**2) / (2 * sigma**2), dim=0)
    single = F.pad(images.flatten(0, 1)[:, None], (reach,) * 4, mode="replicate")
    across = F.conv2d(single, kernel[None, None, None, :])
    return F.conv2d(across, kernel[None, None, :, None])[:, 0].unflatten(0, images.shape[:2])
