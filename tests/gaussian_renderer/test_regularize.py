from __future__ import annotations

import pytest
import torch

from gaussian_renderer.regularize import binary_alpha, mean_alpha, mean_scale, tv, tv_l1


def test_tv_of_known_pictures() -> None:
    assert tv(torch.full((2, 3, 8, 8), 0.7)).item() == 0.0
    ramp = (torch.arange(8) * 0.1).expand(2, 3, 8, 8)
    assert tv(ramp).item() == pytest.approx(2 * 0.01)
    assert tv(ramp.transpose(2, 3)).item() == pytest.approx(2 * 0.01)
    checks = (torch.arange(8)[:, None] + torch.arange(8)).remainder(2).float().expand(1, 1, 8, 8)
    assert tv(checks).item() == pytest.approx(4.0)


def test_tv_does_not_depend_on_the_number_of_copies() -> None:
    image = torch.rand(1, 3, 9, 7)
    torch.testing.assert_close(tv(image.repeat(4, 1, 1, 1)), tv(image))


def test_absolute_steps_take_grains_and_leave_edges() -> None:
    """An edge is as dear as a slope, which is what squares make cheap, and a grain is dearer than a part of an edge."""
    flat = torch.full((1, 3, 16, 16), 0.2)
    edge, slope = flat.clone(), flat + 0.6 * torch.linspace(0, 1, 16)
    edge[..., 8:] = 0.8
    grain = flat.clone()
    grain[..., 4, 4] = 0.8
    assert tv_l1(flat).item() == pytest.approx(0, abs=1e-7)
    assert tv_l1(edge).item() == pytest.approx(tv_l1(slope).item(), rel=0.3)
    assert tv(edge).item() > 10 * tv(slope).item()
    # Sixteen pixels of edge, against the four sides of a grain.
    assert tv_l1(grain).item() == pytest.approx(tv_l1(edge).item() * 4 / 16, rel=0.05)


def test_alpha_terms() -> None:
    alpha = torch.tensor([0.0, 0.5, 1.0, 1.0]).reshape(1, 1, 2, 2)
    assert mean_alpha(alpha).item() == 0.625
    assert binary_alpha(alpha).item() == 0.25
    assert mean_scale(torch.tensor([[1.0, 2.0, 3.0]])).item() == 2.0


def test_tvs_way_back_is_that_of_its_definition() -> None:
    images = torch.rand(2, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(tv, images)
    assert torch.autograd.gradcheck(tv_l1, images)
