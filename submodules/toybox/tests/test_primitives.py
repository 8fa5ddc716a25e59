"""Solids: samples lie on the surface, are uniform by area, and point outwards."""

from __future__ import annotations

import numpy as np
import pytest

from toybox.primitives import box, ellipsoid, frustum, rotation, torus

GREY = (0.5, 0.5, 0.5)
SOLIDS = {
    "ellipsoid": ellipsoid((0.7, 0.4, 0.2), GREY),
    "cylinder": frustum(0.3, 0.3, 0.8, GREY),
    "cone": frustum(0.5, 0.1, 0.6, GREY),
    "torus": torus(0.5, 0.2, GREY),
    "box": box((0.3, 0.5, 0.2), GREY, taper=(0.7, 0.9)),
    "moved": torus(0.5, 0.2, GREY).moved((1.0, -2.0, 0.5), rotation("x", 40)),
}


@pytest.mark.parametrize("name", SOLIDS)
def test_samples_lie_on_the_surface_and_normals_point_out(name: str) -> None:
    solid = SOLIDS[name]
    points, normals = solid.sample(4000, np.random.default_rng(0))
    assert np.allclose(np.linalg.norm(normals, axis=1), 1)
    # Away from edges, a little inward is inside and a little outward is not.
    assert solid.contains(points - 1e-3 * normals).mean() > 0.99
    assert solid.contains(points + 1e-3 * normals).mean() < 0.01


@pytest.mark.parametrize("name", SOLIDS)
def test_volume_by_the_divergence_theorem_equals_the_volume_by_counting(name: str) -> None:
    """Samples that are uniform over the true area, with the right normals, are the only ones that make the
    two agree.
    """
    solid = SOLIDS[name]
    rng = np.random.default_rng(1)
    points, normals = solid.sample(200_000, rng)
    by_flux = solid.area * np.mean(np.sum((points - points.mean(0)) * normals, axis=1)) / 3
    low, high = points.min(0), points.max(0)
    trials = low + (high - low) * rng.random((200_000, 3))
    by_count = np.prod(high - low) * solid.contains(trials).mean()
    assert by_flux == pytest.approx(by_count, rel=0.02)


def test_an_ellipsoid_of_equal_axes_is_a_sphere() -> None:
    assert ellipsoid((0.5, 0.5, 0.5), GREY).area == pytest.approx(np.pi, rel=1e-6)


def test_rotations_are_right_handed() -> None:
    assert np.allclose(rotation("z", 90) @ [1, 0, 0], [0, 1, 0])
    assert np.allclose(rotation("x", 90) @ [0, 1, 0], [0, 0, 1])
    assert np.allclose(rotation("y", 90) @ [0, 0, 1], [1, 0, 0])
