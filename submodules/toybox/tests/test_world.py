"""The toys: what the cameras, the captions and the judge rely on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from toybox.captions import ALONE, HELD_OUT, STACKED, TRAINING
from toybox.point_judge import NAMED, Shape
from toybox.world import (
    COLORS,
    FACELESS,
    KINDS,
    ON_TABLE_SCALE,
    ON_TABLES,
    SPACING,
    TABLE_SCALE,
    TABLE_TOP,
    Name,
    toy,
)


def test_there_are_at_least_16_kinds_in_10_colours_and_some_on_tables() -> None:
    assert len(KINDS) >= 16
    assert len(COLORS) >= 10
    assert len(ALONE) == len(KINDS) * len(COLORS)
    assert len(STACKED) == len(ON_TABLES) * len(COLORS) ** 2


def test_a_fifth_of_the_pairs_is_held_out_and_no_kind_or_colour_with_them() -> None:
    alone = [name for name in HELD_OUT if name.on is None]
    assert len(alone) / len(ALONE) == 0.2
    assert {name.kind for name in TRAINING if name.on is None} == set(KINDS)
    assert {name.color for name in TRAINING if name.on is None} == set(COLORS)


def test_on_a_table_neither_part_is_held_out_in_training() -> None:
    for name in TRAINING:
        assert Name(name.kind, name.color) not in HELD_OUT
        assert name.on is None or Name("table", name.on) not in HELD_OUT


@pytest.mark.parametrize("shape", NAMED, ids=str)
def test_samples_fit_the_unit_ball_and_cover_the_surface_evenly(shape: Shape) -> None:
    points = toy(NAMED[shape][0]).points
    assert np.linalg.norm(points, axis=1).max() < 1
    distance = cKDTree(points).query(points, k=2)[0][:, 1]
    assert distance.min() >= SPACING
    assert distance.max() < 3 * SPACING


@pytest.mark.parametrize("shape", NAMED, ids=str)
def test_left_and_right_are_mirror_images(shape: Shape) -> None:
    truth = toy(NAMED[shape][0])
    distance, near = cKDTree(truth.points).query(truth.points * [1, -1, 1], k=12)
    assert distance[:, 0].max() < 2 * SPACING
    # Samples are random: at the edge of a painted region the same colour is not the nearest, but near.
    differs = np.abs(truth.colors[:, None] - truth.colors[near]).max(axis=2).min(axis=1) > 0.2
    assert differs.mean() < 0.005


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_colour_differs_between_colours(kind: str) -> None:
    red, blue = toy(Name(kind, "red")), toy(Name(kind, "blue"))
    assert np.array_equal(red.points, blue.points)
    assert 0.05 < np.any(red.colors != blue.colors, axis=1).mean() <= 1


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mushroom"])
def test_front_and_back_differ_where_a_toy_has_a_face(kind: str) -> None:
    """Seen straight from the front and from the back (mirrored to match), colour or shape differs somewhere.

    A mushroom's dots differ too, but do not show which side is its front."""
    truth = toy(Name(kind, "yellow"))
    front, back = (truth.normals[:, 0] * side > 0.3 for side in (1, -1))
    mirrored = truth.points[back] * [-1, 1, 1]
    distance, nearest = cKDTree(mirrored).query(truth.points[front])
    color = np.abs(truth.colors[front] - truth.colors[back][nearest]).max(axis=1)
    share = ((distance > 3 * SPACING) | (color > 0.3)).mean()
    assert share < 0.01 if kind in FACELESS else share > 0.02


@pytest.mark.parametrize("kind", ON_TABLES)
def test_on_a_table_stands_the_toy_itself(kind: str) -> None:
    both, above, below = toy(Name(kind, "red", "blue")), toy(Name(kind, "red")), toy(Name("table", "blue"))
    foot, top = above.points[:, 2].min() * ON_TABLE_SCALE, below.points[:, 2].max() * TABLE_SCALE
    for alone, scale, height in ((above, ON_TABLE_SCALE, -foot), (below, TABLE_SCALE, -top)):
        expected = alone.points * scale + [0, 0, TABLE_TOP + height]
        distance, nearest = cKDTree(both.points).query(expected)
        same = (distance < 2 * SPACING) & (np.abs(both.colors[nearest] - alone.colors).max(axis=1) < 0.2)
        assert same.mean() > 0.75  # but for what the other hides, and the edges of what is painted


def test_an_unknown_toy_names_those_there_are() -> None:
    for name in (Name("dragon", "red"), Name("car", "red", "blue"), Name("mug", "red", "mauve")):
        with pytest.raises(ValueError, match="mushroom"):
            toy(name)
