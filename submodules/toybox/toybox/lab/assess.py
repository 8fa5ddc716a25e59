"""Assess an asset by the judge and the truth: 120 views around it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from config import Config
from config.camera_params import GenerateCamParams
from gaussian_renderer import Gaussians
from gaussian_renderer.showcase import NUM_VIEWS, views_of
from scene.cameras import Cameras, orbit, turntable
from toybox.captions import caption, parse
from toybox.judge import Judge, load_judge, named_right
from toybox.lab.metrics import chamfer_distance, speckle, visible_surface
from toybox.splats import canonical
from toybox.world import FACELESS

SURFACE_TURNS, SURFACE_POLARS = 12, 3
"""Numbers of sides, and of heights within the training cameras', from which the surface is seen."""


@dataclass(frozen=True)
class Assessment:
    """Verdict on an asset.

    recognised: share of the views whose kind and colours the judge names right (R-Precision over all toys and
    "none of these"); janus: share of the views from behind (azimuth beyond ±120°) that it takes for a front
    (within ±60°), and orientation: mean of how many degrees further from the front or nearer to it, left and right alike, the
    judge takes the views to be, both 0 for kinds whose back is as their front; psnr: to the true toy's renders on white, in dB;
    chamfer: between the surfaces that the training cameras can see of the asset and of the true toy, in
    percent of the radius of the ball that toys fit in; speckle: of the views (`toybox.lab.metrics`); features [NUM_VIEWS, 128]: the views in the space of
    the Fréchet distance.
    """

    prompt: str
    recognised: float
    janus: float
    orientation: float
    psnr: float
    chamfer: float
    speckle: float
    features: np.ndarray = field(repr=False, compare=False)

    @property
    def short(self) -> str:
        """Text for a table's cell."""
        return f"{self.recognised:.0%}, {self.psnr:.1f} dB"

    def __str__(self) -> str:
        return (
            f"The judge sees {self.prompt} in {self.recognised:.0%} of {NUM_VIEWS} views around it; "
            f"{self.psnr:.1f} dB PSNR to the true toy."
        )


def surface_cameras(params: GenerateCamParams) -> Cameras:
    """Views all around from the lowest to the highest polar angle of the training cameras."""
    low, high = params.theta_range
    turn = torch.arange(SURFACE_TURNS).repeat(SURFACE_POLARS) * (360 / SURFACE_TURNS)
    polar = torch.linspace(low, high, SURFACE_POLARS).repeat_interleave(SURFACE_TURNS)
    return orbit(turn, polar, params.default_radius, params.default_fovy, params.image_w, params.image_h)


def assess(
    gaussians: Gaussians,
    prompt: str,
    config: Config,
    judge: Judge | None = None,
    views: Tensor | None = None,
) -> Assessment:
    """Judge Gaussians against the toy that the prompt names; views: theirs, if they are rendered already.

    Raises ValueError if the prompt names no toy.
    """
    name = parse(prompt)
    judge = judge or load_judge()
    cameras, around = turntable(config.camera, NUM_VIEWS), surface_cameras(config.camera)
    toy = canonical(name)
    images = views_of(gaussians, config) if views is None else views
    truth = views_of(toy, config)
    verdict = judge.judge(images)
    behind = cameras.azimuth.abs() > 120
    fronts = (verdict.azimuth.abs() < 60) & (verdict.name >= 0)
    off = (verdict.azimuth.abs() - cameras.azimuth.abs()).abs()
    faceless = name.kind in FACELESS
    mse = (images - truth).square().mean(dim=(1, 2, 3))
    return Assessment(
        prompt=caption(name),
        recognised=float(named_right(verdict, [name] * NUM_VIEWS).float().mean()),
        janus=0.0 if faceless else float(fronts[behind].float().mean()),
        orientation=0.0 if faceless else float(off.mean()),
        psnr=float((-10 * mse.log10()).mean()),
        chamfer=100 * chamfer_distance(visible_surface(gaussians, around), visible_surface(toy, around)),
        speckle=speckle(images),
        features=judge.features(images).numpy(),
    )
