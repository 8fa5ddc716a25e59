"""The toys: what the cameras, the captions and the judge rely on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from toybox.captions import HELD_OUT, PAIRS, TRAINING
from toybox.world import COLORS, KINDS, SPACING, toy


def test_there_are_at_least_8_kinds_in_6_colours() -> None:
    assert len(KINDS) >= 8
    assert len(COLORS) >= 6


def test_a_fifth_of_the_pairs_is_held_out_and_no_kind_or_colour_with_them() -> None:
    assert 0.15 < len(HELD_OUT) / len(PAIRS) < 0.25
    assert {kind for kind, _ in TRAINING} == set(KINDS)
    assert {color for _, color in TRAINING} == set(COLORS)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_fit_the_unit_ball_and_cover_the_surface_evenly(kind: str) -> None:
    points = toy(kind, "red").points
    assert np.linalg.norm(points, axis=1).max() < 1
    distance = cKDTree(points).query(points, k=2)[0][:, 1]
    assert distance.min() >= SPACING
    assert distance.max() < 3 * SPACING


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_colour_differs_between_colours(kind: str) -> None:
    red, blue = toy(kind, "red"), toy(kind, "blue")
    assert np.array_equal(red.points, blue.points)
    assert 0.05 < np.any(red.colors != blue.colors, axis=1).mean() <= 1


@pytest.mark.parametrize("kind", ["snowman", "mug", "car", "rocket", "house", "duck", "chair"])
def test_front_and_back_differ(kind: str) -> None:
    """Seen straight from the front and from the back (mirrored to match), colour or shape differs somewhere."""
    truth = toy(kind, "yellow")
    front, back = (truth.normals[:, 0] * side > 0.3 for side in (1, -1))
    mirrored = truth.points[back] * [-1, 1, 1]
    distance, nearest = cKDTree(mirrored).query(truth.points[front])
    color = np.abs(truth.colors[front] - truth.colors[back][nearest]).max(axis=1)
    assert ((distance > 3 * SPACING) | (color > 0.35)).mean() > 0.02


def test_an_unknown_toy_names_those_there_are() -> None:
    with pytest.raises(ValueError, match="mushroom"):
        toy("dragon", "red")
