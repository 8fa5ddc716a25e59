from __future__ import annotations

import pytest
import torch
from scipy.spatial.distance import cdist

from scene.gaussian_model import ATTRIBUTES, GaussianModel, active_sh_degree
from utils.spherical_harmonics import dc_to_rgb


def model(count: int = 20, degree: int = 1) -> GaussianModel:
    rng = torch.Generator().manual_seed(0)
    return GaussianModel.from_points(
        torch.rand(count, 3, generator=rng), torch.rand(count, 3, generator=rng), degree
    )


def test_from_points_sets_position_colour_opacity_and_size() -> None:
    rng = torch.Generator().manual_seed(0)
    points, colors = torch.rand(2, 30, 3, generator=rng)
    gaussians = GaussianModel.from_points(points, colors, sh_degree=2, initial_opacity=0.3)
    assert torch.equal(gaussians.means, points)
    assert gaussians.shs.shape == (30, 9, 3)
    torch.testing.assert_close(dc_to_rgb(gaussians.shs[:, 0]), colors)
    assert bool((gaussians.shs[:, 1:] == 0).all())
    torch.testing.assert_close(gaussians.opacities, torch.full((30, 1), 0.3))
    assert torch.equal(gaussians.rotations, torch.tensor([1.0, 0, 0, 0]).expand(30, 4))
    distances = torch.from_numpy(cdist(points, points)).sort(dim=1).values[:, 1:4]
    expected = distances.square().mean(dim=1).sqrt().float()
    torch.testing.assert_close(gaussians.scales, expected[:, None].expand(30, 3), rtol=1e-4, atol=0)


def test_activations_have_their_ranges_and_gradients() -> None:
    gaussians = model()
    with torch.no_grad():
        gaussians._rotations.mul_(5.0)
        gaussians._opacities.add_(torch.randn(20, 1))
    assert bool(((gaussians.opacities > 0) & (gaussians.opacities < 1)).all())
    assert bool((gaussians.scales > 0).all())
    torch.testing.assert_close(gaussians.rotations.norm(dim=1), torch.ones(20))
    parts = (gaussians.means, gaussians.shs, gaussians.opacities, gaussians.scales, gaussians.rotations)
    sum(part.square().sum() * 1.5 for part in parts).backward()
    assert all(parameter.grad is not None for parameter in gaussians.raw().values())


def test_coincident_points_have_a_finite_scale() -> None:
    gaussians = GaussianModel.from_points(torch.zeros(10, 3), torch.zeros(10, 3), 0)
    assert gaussians.nonfinite() == {}
    assert bool((gaussians.scales > 0).all())


def test_state_round_trip() -> None:
    gaussians = model(degree=3)
    again = GaussianModel(gaussians.state_dict())
    assert again.sh_degree == 3
    assert all(torch.equal(a, b) for a, b in zip(gaussians.raw().values(), again.raw().values()))
    with torch.no_grad():
        again._means.add_(1.0)
    assert not torch.equal(gaussians.means, again.means)


def test_nonfinite_counts_gaussians_by_group() -> None:
    gaussians = model()
    assert gaussians.nonfinite() == gaussians.nonfinite(gradients=True) == {}
    with torch.no_grad():
        gaussians._scales[3] = float("inf")
        gaussians._scales[4, 1] = float("nan")
    assert gaussians.nonfinite() == {"scaling": 2}
    gaussians._features_dc.grad = torch.zeros(20, 1, 3)
    gaussians._features_dc.grad[7, 0, 1] = float("nan")
    assert gaussians.nonfinite(gradients=True) == {"f_dc": 1}


def test_wrong_shapes_are_named() -> None:
    raw = model().state_dict()
    with pytest.raises(ValueError, match=r"^opacity has shape \[20, 2\]"):
        GaussianModel(raw | {"opacity": torch.zeros(20, 2)})
    with pytest.raises(ValueError, match=r"^raw holds"):
        GaussianModel({name: raw[name] for name in list(ATTRIBUTES)[:3]})
    with pytest.raises(ValueError, match=r"^points and colors"):
        GaussianModel.from_points(torch.zeros(3, 3), torch.zeros(2, 3), 0)


def test_the_degree_in_use_rises_to_the_models() -> None:
    assert [active_sh_degree(2, step) for step in (1, 499, 500, 1000, 9000)] == [0, 0, 1, 2, 2]
    assert active_sh_degree(0, 5000) == 0
