"""Renderer as text-to-3D code writes it against the rasterizer that returns (color, radii, depth_alpha).

It is written for the original's interface alone: nothing in it knows whose module it imports.
"""

import math
import random

import torch

from diff_gaussian_rasterization import GaussianRasterizationSettings, GaussianRasterizer

SH_BAND_0 = 0.5 * math.sqrt(1 / math.pi)
SH_BAND_1 = math.sqrt(3 / (4 * math.pi))


def colors_from_sh(degree, features, directions):
    """Turn features [N, K, 3] and unit directions [N, 3] into colors [N, 3], for degrees 0 and 1."""
    colors = SH_BAND_0 * features[:, 0]
    if degree > 0:
        x, y, z = directions.split(1, dim=1)
        colors = colors + SH_BAND_1 * (z * features[:, 2] - y * features[:, 1] - x * features[:, 3])
    return torch.clamp_min(colors + 0.5, 0.0)


def make_rasterizer(viewpoint_camera, background, scaling_modifier, sh_degree, debug):
    settings = {
        "image_height": int(viewpoint_camera.image_height),
        "image_width": int(viewpoint_camera.image_width),
        "tanfovx": math.tan(viewpoint_camera.FoVx * 0.5),
        "tanfovy": math.tan(viewpoint_camera.FoVy * 0.5),
        "bg": background,
        "scale_modifier": scaling_modifier,
        "viewmatrix": viewpoint_camera.world_view_transform,
        "projmatrix": viewpoint_camera.full_proj_transform,
        "sh_degree": sh_degree,
        "campos": viewpoint_camera.camera_center,
        "prefiltered": False,
    }
    try:
        raster_settings = GaussianRasterizationSettings(**settings)
    except TypeError:  # versions that insist on debug
        raster_settings = GaussianRasterizationSettings(**settings, debug=debug)
    return GaussianRasterizer(raster_settings=raster_settings)


def render(
    viewpoint_camera,
    pc,
    pipe,
    bg_color,
    scaling_modifier=1.0,
    override_color=None,
    bg_aug_ratio=0.0,
    sh_deg_aug_ratio=0.0,
):
    """Render one image [3, H, W] with depth, transmittance, disparity and what densification needs."""
    screenspace_points = torch.zeros_like(pc.get_xyz, requires_grad=True) + 0
    if screenspace_points.requires_grad:
        screenspace_points.retain_grad()

    if random.random() < bg_aug_ratio:
        bg_color = torch.rand_like(bg_color)
    sh_degree = 0 if random.random() < sh_deg_aug_ratio else pc.active_sh_degree
    rasterizer = make_rasterizer(viewpoint_camera, bg_color, scaling_modifier, sh_degree, pipe.debug)

    scales = rotations = cov3D_precomp = None
    if pipe.compute_cov3D_python:
        cov3D_precomp = pc.get_covariance(scaling_modifier)
    else:
        scales, rotations = pc.get_scaling, pc.get_rotation

    shs = colors_precomp = None
    if override_color is not None:
        colors_precomp = override_color
    elif pipe.convert_SHs_python:
        directions = pc.get_xyz - viewpoint_camera.camera_center
        directions = directions / directions.norm(dim=1, keepdim=True)
        colors_precomp = colors_from_sh(sh_degree, pc.get_features, directions)
    else:
        shs = pc.get_features

    rendered_image, radii, depth_alpha = rasterizer(
        means3D=pc.get_xyz,
        means2D=screenspace_points,
        shs=shs,
        colors_precomp=colors_precomp,
        opacities=pc.get_opacity,
        scales=scales,
        rotations=rotations,
        cov3D_precomp=cov3D_precomp,
    )
    depth, alpha = torch.chunk(depth_alpha, 2)

    focal = 1 / (2 * math.tan(viewpoint_camera.FoVx / 2))
    disparity = focal / (depth + alpha * 10 + 1e-5)
    try:
        nearest_to_zero = disparity[alpha <= 0.1].min()
    except Exception:  # no pixel is covered
        nearest_to_zero = disparity.min()
    disparity = torch.clamp((disparity - nearest_to_zero) / (disparity.max() - nearest_to_zero), 0.0, 1.0)

    return {
        "render": rendered_image,
        "depth": depth,
        "alpha": alpha,
        "disparity": disparity,
        "viewspace_points": screenspace_points,
        "visibility_filter": radii > 0,
        "radii": radii,
    }


def visible_points(viewpoint_camera, pc, bg_color):
    """Mask [N] of the points that lie in front of the camera."""
    return make_rasterizer(viewpoint_camera, bg_color, 1.0, pc.active_sh_degree, False).markVisible(
        pc.get_xyz
    )
