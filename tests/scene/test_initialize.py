from __future__ import annotations

from pathlib import Path

import pytest
import torch

from config.schema import GenerateCamParams, ModelParams
from scene.gaussian_model import GaussianModel
from scene.initialize import fit_to_view, initialize
from utils.spherical_harmonics import dc_to_rgb


def start(shape: str, count: int = 2000, seed: int = 0, degree: int = 0) -> GaussianModel:
    params = GenerateCamParams(init_shape=shape, init_num_pts=count)
    return initialize(params, ModelParams(sh_degree=degree), torch.Generator().manual_seed(seed))


def test_the_sphere_is_a_ball_of_half_a_unit_seen_alike_from_everywhere() -> None:
    means = start("sphere").means.detach()
    radii = means.norm(dim=1)
    assert radii.max() <= 0.5 + 1e-6
    assert radii.mean() == pytest.approx(0.25, abs=0.01)
    directions = means / radii[:, None]
    assert directions.mean(dim=0).norm() < 0.05
    torch.testing.assert_close(directions.T @ directions / 2000, torch.eye(3) / 3, atol=0.03, rtol=0)


@pytest.mark.parametrize(
    ("shape", "edges"),
    [("box", (1.0, 1.0, 1.0)), ("rectangle_x", (0.6, 1.2, 0.5)), ("rectangle_z", (0.8, 0.6, 1.2))],
)
def test_cuboids_fill_their_edges(shape: str, edges: tuple[float, float, float]) -> None:
    low, high = start(shape).means.aminmax(dim=0)
    torch.testing.assert_close(high - low, torch.tensor(edges), rtol=0.01, atol=0)
    torch.testing.assert_close(high + low, torch.zeros(3), rtol=0, atol=0.01)


def test_the_scene_lies_beyond_the_cameras() -> None:
    radii = start("scene").means.norm(dim=1)
    assert 16.5 - 1e-3 <= radii.min() < radii.max() <= 17.5 + 1e-3


@pytest.mark.parametrize("shape", ["sphere", "box", "rectangle_x", "rectangle_z", "scene"])
def test_every_shape_is_grey_faint_finite_and_seeded(shape: str) -> None:
    model = start(shape, degree=2)
    assert len(model) == 2000
    assert model.sh_degree == 2
    assert model.nonfinite() == {}
    colors = dc_to_rgb(model.shs[:, 0])
    assert bool(((colors >= 0.5) & (colors < 0.502)).all())
    assert len(colors.unique(dim=0)) > 1900
    torch.testing.assert_close(model.opacities, torch.full((2000, 1), 0.1))
    again, other = start(shape, degree=2), start(shape, seed=1, degree=2)
    assert torch.equal(model.means, again.means)
    assert not torch.equal(model.means, other.means)


def cloud(path: Path, points: torch.Tensor, colors: torch.Tensor) -> str:
    GaussianModel.from_points(points, colors, 0).save_ply(path)
    return str(path)


def test_a_file_keeps_its_points_and_colours(tmp_path: Path) -> None:
    points, colors = torch.rand(2, 50, 3, generator=torch.Generator().manual_seed(0))
    points -= 0.5
    model = start(cloud(tmp_path / "x.ply", points, colors))
    torch.testing.assert_close(model.means.detach(), points)
    torch.testing.assert_close(dc_to_rgb(model.shs[:, 0]).detach(), colors)


def test_a_large_file_is_thinned_to_a_subset(tmp_path: Path) -> None:
    points, colors = torch.rand(2, 50, 3, generator=torch.Generator().manual_seed(0))
    points -= 0.5
    model = start(cloud(tmp_path / "x.ply", points, colors), count=20)
    assert len(model) == 20
    rows = [(points == mean).all(dim=1).nonzero().item() for mean in model.means]
    assert rows == sorted(set(rows))


def test_only_clouds_far_out_of_view_are_moved() -> None:
    points = torch.rand(30, 3, generator=torch.Generator().manual_seed(0)) - 0.3
    assert torch.equal(fit_to_view(points, 1.0), points)
    for outside in (points * 100, points * 0.001, points + 50.0):
        fitted = fit_to_view(outside, 1.0)
        assert fitted.norm(dim=1).max() == pytest.approx(0.5, rel=1e-3)
        low, high = fitted.aminmax(dim=0)
        torch.testing.assert_close(low, -high, atol=1e-3, rtol=0)
        # One factor for all axes: shapes keep their proportions.
        ratio = (fitted[1:] - fitted[:-1]) / (outside[1:] - outside[:-1])
        torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio), rtol=1e-2, atol=0)
    assert torch.equal(fit_to_view(torch.full((3, 3), 9.0), 1.0), torch.zeros(3, 3))


@pytest.mark.parametrize(
    ("shape", "words"), [("pointe", "not available yet.*'sphere'.*ply"), ("/nowhere/x.ply", "not there")]
)
def test_what_cannot_be_started_from_gets_a_sentence(shape: str, words: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        start(shape)


def test_an_empty_file_gets_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "none.ply"
    header = "ply\nformat ascii 1.0\nelement vertex 0\nproperty float x\nproperty float y\nproperty float z\n"
    path.write_text(header + "end_header\n")
    with pytest.raises(ValueError, match="no points"):
        start(str(path))
