"""Pictures of a guide: those of a ball against its formula, and how they follow what is done to the views."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import trimesh
from torch import Tensor

from config import Config
from gaussian_renderer.guide_pictures import PICTURES, guide_pictures
from gaussian_renderer.surface import surface
from gaussian_renderer.training_views import training_views
from scene.cameras import Cameras, ViewRange, orbit, sample
from scene.guide_shape import GuideShape, load_guide_shape
from tests.changed import changed
from utils.device import HOST
from utils.rng import Draws

RADIUS = 0.5
SIZE = 96


def guide_of(mesh: trimesh.Trimesh, folder: Path) -> GuideShape:
    path = folder / "guide.obj"
    mesh.export(path)
    config = changed(Config(), controlnet_guide=str(path), image_w=SIZE, image_h=SIZE)
    return load_guide_shape(config, Draws(0), HOST)


def lopsided() -> trimesh.Trimesh:
    """A box that looks another way from every side, with a smaller one at its corner."""
    small = trimesh.creation.box((0.3, 0.2, 0.5), trimesh.transformations.translation_matrix((0.2, 0.3, 0.3)))
    return trimesh.util.concatenate([trimesh.creation.box((0.9, 0.5, 0.4)), small])


@pytest.fixture(scope="module")
def ball(tmp_path_factory: pytest.TempPathFactory) -> GuideShape:
    return guide_of(trimesh.creation.icosphere(5, RADIUS), tmp_path_factory.mktemp("ball"))


def true_ball(cameras: Cameras) -> tuple[Tensor, Tensor, Tensor]:
    """Find where rays through the pixels hit the ball [V, 1, H, W], at which depth, and its normals [V, 3, H, W] there in the view's axes."""
    rows, columns = (torch.arange(size, dtype=torch.float64) for size in (cameras.height, cameras.width))
    (fx, fy), (cx, cy) = cameras.focals.double().unbind(1), cameras.principals.double().unbind(1)
    x = (columns - cx[:, None])[:, None, :] / fx[:, None, None]
    y = (rows - cy[:, None])[:, :, None] / fy[:, None, None]
    rays = torch.stack(torch.broadcast_tensors(x, y, torch.ones(1, 1, 1, dtype=torch.float64)), dim=1)
    middle = cameras.viewmats[:, :3, 3].double()[..., None, None]
    a, b, c = (
        (one * other).sum(1, keepdim=True) for one, other in ((rays, rays), (rays, middle), (middle, middle))
    )
    root = b * b - a * (c - RADIUS**2)
    depth = (b - root.clamp_min(0).sqrt()) / a
    x, y, z = ((depth * rays - middle) / RADIUS).split(1, dim=1)
    return root > 0, depth, torch.cat([x, -y, -z], dim=1)


def test_a_ball_is_as_its_formula_has_it(ball: GuideShape) -> None:
    """Depth within a hundredth of the radius and normals within 3 degrees on the mean, but for two pixels at the rim; the
    views are not square, and the pictures are."""
    cameras = orbit([20.0, 200.0], [60.0, 100.0], [2.0, 2.5], 0.6, SIZE, SIZE * 2 // 3)
    kinds = ["depth", "normal", "mask", "outline"]
    depth, normal, mask, outline = guide_pictures(ball, cameras, kinds, SIZE, mirrored=False).unbind(1)
    there, distance, normals = true_ball(cameras.resized(SIZE, SIZE))
    inside = -torch.nn.functional.max_pool2d(-there.double(), 5, 1, 2) == 1
    outside = torch.nn.functional.max_pool2d(there.double(), 5, 1, 2) == 0
    rim = ~inside & ~outside
    assert bool((mask[inside.expand(-1, 3, -1, -1)] == 1).all())
    assert bool((mask[outside.expand(-1, 3, -1, -1)] == 0).all())
    off = (surface(ball.gaussians, ball.normals, cameras.resized(SIZE, SIZE)).depth - distance).abs()[inside]
    assert float(off.max()) < 0.01 * RADIUS
    for view in range(2):
        # Straight in the inverse depth, from 0 at the rim to 1 at the nearest place.
        shown, inverse = depth[view, 0][inside[view, 0]].double(), 1 / distance[view, 0][inside[view, 0]]
        line = torch.stack([inverse, torch.ones_like(inverse)], dim=1)
        fitted = line @ torch.linalg.lstsq(line, shown[:, None]).solution
        assert float((fitted[:, 0] - shown).abs().mean()) < 1 / 256
        assert (float(depth[view].min()), float(depth[view].max())) == (0, 1)
        assert float(shown[inverse.argmax()]) > 0.99
        assert float(shown[inverse.argmin()]) < 0.15
    assert bool((depth[outside.expand(-1, 3, -1, -1)] == 0).all())
    cosines = ((2 * normal - 1) * normals).sum(1, keepdim=True).clamp(-1, 1)
    assert float(torch.rad2deg(torch.acos(cosines[inside])).mean()) < 3
    assert torch.equal(normal[:, :, 0, 0], torch.tensor([0.5, 0.5, 1.0]).expand(2, 3))
    # Lines are at the rim, and close it.
    at_rim = outline[rim.expand(-1, 3, -1, -1)].sum() / outline.sum()
    assert float(at_rim) > 0.9
    assert float(outline[:, 0].sum()) > 0.5 * math.pi * float(there.sum()) ** 0.5


def test_an_asset_of_gaussians_shows_the_same(ball: GuideShape, tmp_path: Path) -> None:
    """Its normals are those of its depth."""
    ball.gaussians.save_ply(tmp_path / "asset.ply")
    config = changed(Config(), controlnet_guide=str(tmp_path / "asset.ply"))
    asset = load_guide_shape(config, Draws(0), HOST)
    assert asset.normals is None
    cameras = orbit([20.0], [60.0], 2.0, 0.6, SIZE, SIZE)
    there, _, _ = true_ball(cameras)
    inside = (-torch.nn.functional.max_pool2d(-there.double(), 15, 1, 7) == 1).expand(-1, 3, -1, -1)
    of_mesh, of_asset = (
        guide_pictures(each, cameras, ["depth", "normal"], SIZE, mirrored=False)[0] for each in (ball, asset)
    )
    for one, other in zip(of_mesh, of_asset):
        assert float((one - other).abs()[inside[0]].mean()) < 0.05


def test_pictures_follow_flips_jitter_and_supersampling_as_views_do(tmp_path: Path) -> None:
    """A run that is at its guide already sees it where the mask has it, pixel by pixel."""
    shape = guide_of(lopsided(), tmp_path)
    config = changed(
        Config(),
        image_w=48,
        image_h=32,
        SSAA=2,
        flip_aug_ratio=1.0,
        scale_aug_ratio=0.0,
        jitter_center=0.3,
        jitter_target=0.3,
        jitter_up=0.3,
    )
    draws = Draws(1)
    camera = changed(config, radius_range=(2.0, 2.5)).camera
    cameras = sample(camera, ViewRange.initial(camera), 3, draws.at("cameras", 1))
    seen = training_views(shape.gaussians, cameras, config, 1, range(3), draws)
    assert seen.mirrored
    alpha = seen._as_seen(seen.out.alpha)
    shown = torch.nn.functional.interpolate(alpha, (64, 64), mode="bilinear", antialias=True) >= 0.5
    found = guide_pictures(shape, cameras, ["mask"], 64, mirrored=seen.mirrored)[:, 0, :1] >= 0.5
    differ = [float((shown != other).double().mean()) for other in (found, found.flip(-1))]
    assert 0.02 < float(shown.double().mean()) < 0.9
    assert differ[0] < 0.02 < differ[1]


def test_a_mirrored_picture_is_that_of_the_mirrored_shape(tmp_path: Path) -> None:
    mesh, mirror = lopsided(), lopsided()
    # In an .obj file y is up and z the front.
    mirror.apply_transform(torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0])).numpy())
    one, other = (guide_of(each, tmp_path) for each in (mesh, mirror))
    views = {turn: orbit([turn * 35.0], [70.0], 3.0, 0.5, SIZE, SIZE) for turn in (1, -1)}
    found = guide_pictures(one, views[1], [*PICTURES], SIZE, mirrored=True)
    wanted = guide_pictures(other, views[-1], [*PICTURES], SIZE, mirrored=False)
    plain = guide_pictures(one, views[1], [*PICTURES], SIZE, mirrored=False)
    for kind, picture, expected, otherwise in zip(PICTURES, found[0], wanted[0], plain[0].flip(-1)):
        assert float((picture - expected).abs().mean()) < 0.02, kind
        if kind == "normal":
            assert float((otherwise - expected).abs().mean()) > 0.02
