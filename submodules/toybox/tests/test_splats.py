"""Toys as Gaussians and their look-alikes."""

from __future__ import annotations

import pytest
import torch

from toybox import splats
from toybox.world import Name, toy
from utils.rotation import quaternion_to_matrix


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_canonical_gaussians_are_flat_along_the_surface_normal() -> None:
    truth, gaussians = toy(Name("duck", "red")), splats.canonical(Name("duck", "red"))
    axes = quaternion_to_matrix(gaussians.rotations)
    assert torch.allclose(axes[:, :, 2], torch.from_numpy(truth.normals).float(), atol=1e-5)
    assert bool((gaussians.scales[:, 2] < gaussians.scales[:, :2].amin(dim=1)).all())


@pytest.mark.parametrize("axis", [0, 1])
def test_two_fronted_toys_are_their_own_mirror_image(axis: int) -> None:
    double = splats.two_fronted(splats.canonical(Name("car", "red")), axis)
    flip = torch.ones(3)
    flip[axis] = -1
    normals = quaternion_to_matrix(double.rotations)[:, :, 2]
    both = torch.cat([double.means, normals], dim=1).double()
    mirrored = both * torch.cat([flip, flip])
    # The mirror image is the same set; a plane's normal may have either sign.
    distance = torch.minimum(
        torch.cdist(mirrored, both), torch.cdist(mirrored, both * torch.tensor([1.0] * 3 + [-1.0] * 3))
    )
    assert float(distance.amin(dim=1).max()) < 1e-4


def test_ring_keeps_height_and_distance_from_the_axis(rng: torch.Generator) -> None:
    true = splats.canonical(Name("house", "blue"))
    turned = splats.ring(true, rng)
    assert torch.equal(turned.means[:, 2], true.means[:, 2])
    assert torch.allclose(turned.means[:, :2].norm(dim=1), true.means[:, :2].norm(dim=1), atol=1e-5)


def test_look_alikes_differ_from_the_toy_and_stay_renderable(rng: torch.Generator) -> None:
    true, other = splats.canonical(Name("chair", "red")), splats.canonical(Name("duck", "red"))
    made = [
        splats.worn(true, rng, 1.0), splats.blob(true, rng), splats.ring(true, rng), splats.stitched(true, other, 0.0),
        splats.recolored(true, rng), splats.lump("red", rng), splats.cloud(rng),
    ]  # fmt: skip
    for gaussians in made:
        count = len(gaussians)
        assert count > 100
        assert gaussians.shs.shape == (count, 1, 3)
        assert bool((gaussians.scales > 0).all())
        assert bool(((gaussians.colors >= 0) & (gaussians.colors <= 1)).all())
        same = (
            count == len(true)
            and torch.equal(gaussians.means, true.means)
            and torch.equal(gaussians.colors, true.colors)
        )
        assert not same


def test_colours_survive_the_harmonics() -> None:
    gaussians = splats.canonical(Name("mug", "green"))
    assert torch.allclose(gaussians.shs[:, 0] * splats.SH_C0 + 0.5, gaussians.colors, atol=1e-6)
