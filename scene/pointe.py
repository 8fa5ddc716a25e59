"""Point-E's cloud for a prompt as a start."""

from __future__ import annotations

import torch

import point_e
from config.guidance_params import TOY_PRIORS, TOYBOX
from config.schema import Config
from scene.point_cloud import PointCloud, thin, upright
from scene.shapes import directions
from simple_knn._C import distCUDA2

AXES, TOYBOX_AXES = "z,-y", "z,x"
"""Up and front of the published models' clouds, and of toybox's (see `point_cloud.upright`)."""


def sample_point_e(config: Config, rng: torch.Generator, device: torch.device) -> PointCloud:
    """Sample `init_num_pts` points around Point-E's for `init_prompt`, or for the run's text where that is blank.

    They are upright, in Point-E's units, with its colours if `use_pointe_rgb`. Raises ValueError, one sentence,
    if the model cannot be had.
    """
    params = config.camera
    prompt = params.init_prompt if params.init_prompt.strip() else config.guidance.text
    model, axes = _model(config)
    try:
        pipeline = point_e.load(model, device=device)
        made = pipeline.from_text(prompt, seed=config.seed, progress=not config.quiet)
    except point_e.PointEError as error:
        raise ValueError(f"Point-E: {error}") from error
    points = upright(made.points, params.init_axes or axes)
    return multiply(
        PointCloud(points, made.colors if params.use_pointe_rgb else None), params.init_num_pts, rng
    )


def _model(config: Config) -> tuple[str, str]:
    """Argument of `point_e.load`, a name or a folder, and the axes of its clouds."""
    model = config.camera.pointe_model
    if model != TOYBOX and not (model is None and config.guidance.model_key in TOY_PRIORS):
        return model or "openai", AXES
    import toybox

    return str(toybox.weights_path() / "point_e"), TOYBOX_AXES


def multiply(cloud: PointCloud, count: int, rng: torch.Generator) -> PointCloud:
    """Return `count` points, for a cloud of fewer: its own, and others near them, as many for each.

    A new point is uniform in the ball around its old one that reaches as far as that one's neighbours
    (the root of distCUDA2). Gaps close so, and thin parts stay thin; LucidDreamer takes 0.05 everywhere. A
    larger cloud is thinned.
    """
    if count <= len(cloud):
        return thin(cloud, count, rng)
    fresh = count - len(cloud)
    parents = torch.randperm(len(cloud), generator=rng).repeat(fresh // len(cloud) + 1)[:fresh]
    radii = distCUDA2(cloud.points).sqrt()[parents, None] * torch.rand(fresh, 1, generator=rng).pow(1 / 3)
    points = torch.cat([cloud.points, cloud.points[parents] + radii * directions(fresh, rng)])
    return PointCloud(
        points, None if cloud.colors is None else torch.cat([cloud.colors, cloud.colors[parents]])
    )
