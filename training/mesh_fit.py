"""The fit of a start's Gaussians to the mesh that they lie on, before the first iteration and without the prior."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from config.optimization_params import OptimizationParams
from config.schema import Config
from gaussian_renderer import render
from gaussian_renderer.mesh_views import MeshViews, mesh_views
from scene.cameras import Cameras, orbit, spiral
from scene.densify import cap_scales
from scene.gaussian_model import GaussianModel
from scene.meshes.placed import load_mesh_of_start
from scene.optimizer import GaussianOptimizer
from utils.device import HOST
from utils.rng import Draws

VIEWS, BESIDE = 40, 8
"""Views all around that are fitted to, and views between them in which the fit is measured."""
BATCH = 4
MOST_PIXELS = 512
"""Largest side of a view."""

logger = logging.getLogger(__name__)


def fit_to_mesh(gaussians: GaussianModel, config: Config, draws: Draws) -> None:
    """Fit the Gaussians to renders of the mesh of `init_shape`, in place, in `init_fit_iter` iterations.

    They are seen by the default camera's lens, from all around the mesh, over random colours. One line reports the PSNR before
    and after. Raises as `load_mesh_of_start` does.
    """
    params, count = config.camera, config.camera.init_fit_iter
    mesh = load_mesh_of_start(params, draws.at("init"))
    cameras, beside = _around(config, VIEWS), _around(config, BESIDE)
    views, truth = mesh_views(mesh, cameras), mesh_views(mesh, beside)
    before = _psnr(gaussians, beside, truth, config)
    device, antialiasing = gaussians.device, config.pipeline.antialiasing
    cameras, views = cameras.to(device), MeshViews(views.rgb.to(device), views.alpha.to(device))
    spacing = float(gaussians.scales.detach().amax(dim=1).median())
    optimizer = GaussianOptimizer(gaussians, _rates(count), spacing)
    for step in range(1, count + 1):
        rng = draws.at("init_fit", step)
        some = torch.randperm(VIEWS, generator=rng)[:BATCH].to(device)
        background = torch.rand(BATCH, 3, generator=rng).to(device)
        out = render(gaussians, cameras[some], background, sh_degree=0, antialiasing=antialiasing)
        wanted = MeshViews(views.rgb[some], views.alpha[some]).over(background)
        (out.rgb - wanted).abs().mean().backward()
        optimizer.step(step)
        if config.optimization.max_scale is not None and not config.optimization.keeps_geometry:
            cap_scales(optimizer, config.optimization.max_scale)
    after = _psnr(gaussians, beside, truth, config)
    logger.info(
        "init_fit_iter: %d Gaussians fitted to %s in %d iterations: PSNR %.1f dB before, %.1f dB after, in %d views between those "
        "fitted to.",
        len(gaussians), mesh.name, count, before, after, BESIDE,
    )  # fmt: skip


def _rates(count: int) -> OptimizationParams:
    """Return the rates of the fit; those of positions are in distances between neighbours."""
    return OptimizationParams(
        iterations=count,
        position_lr_init=0.05,
        position_lr_final=0.005,
        feature_lr=0.04,
        feature_lr_final=0.005,
        opacity_lr=0.03,
        scaling_lr=0.03,
        scaling_lr_final=0.005,
        rotation_lr=0.03,
        rotation_lr_final=0.005,
        adam_betas=(0.9, 0.99),
        grad_clip=[],
    )


def _around(config: Config, count: int) -> Cameras:
    """Cameras evenly over the whole sphere, on the host, with the default camera's distance and lens."""
    params = config.camera
    azimuth, polar = spiral(count)
    width, height = params.image_w * params.SSAA, params.image_h * params.SSAA
    scale = min(1.0, MOST_PIXELS / max(width, height))
    cameras = orbit(azimuth, polar, params.default_radius, params.default_fovy, width, height)
    return cameras.resized(max(1, round(scale * width)), max(1, round(scale * height)))


@torch.no_grad()
def _psnr(gaussians: GaussianModel, cameras: Cameras, truth: MeshViews, config: Config) -> float:
    """Mean PSNR over views, on white, in dB."""
    white = torch.ones(3, device=gaussians.device)

    def error(view: int) -> Tensor:
        camera = cameras[[view]].to(gaussians.device)
        out = render(gaussians, camera, white, sh_degree=0, antialiasing=config.pipeline.antialiasing)
        return (out.rgb.clamp(0, 1).to(HOST) - truth.over(torch.ones(3))[view]).square().mean()

    mse = torch.stack([error(view) for view in range(len(cameras))])
    return float((-10 * mse.clamp_min(1e-10).log10()).mean())
