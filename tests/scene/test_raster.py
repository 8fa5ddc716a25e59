from __future__ import annotations

import numpy as np

from scene.meshes.raster import cover, nearest


def brute_force(corners: np.ndarray, height: int, width: int) -> set[tuple[int, int, int]]:
    """Triples (face, row, column) of all pixel centres strictly inside a face."""
    found = set()
    for face, (a, b, c) in enumerate(corners):
        for row in range(height):
            for column in range(width):
                p = np.array([column, row])
                sides = [
                    (v - u)[0] * (p - u)[1] - (v - u)[1] * (p - u)[0] for u, v in ((a, b), (b, c), (c, a))
                ]
                if min(sides) > 1e-9 or max(sides) < -1e-9:
                    found.add((face, row, column))
    return found


def test_a_pixel_is_covered_if_its_centre_is_inside() -> None:
    # Some reach beyond the image, some lie beside it, both ways round, and one has no area.
    corners = np.random.default_rng(0).uniform(-4, 16, (40, 3, 2))
    corners[7] = corners[7, :1]
    found = cover(corners, 9, 12)
    assert set(zip(found.faces, found.rows, found.columns)) == brute_force(corners, 9, 12)
    places = (corners[found.faces] * found.weights[:, :, None]).sum(axis=1)
    np.testing.assert_allclose(places, np.stack([found.columns, found.rows], axis=1), atol=1e-9)


def test_no_faces_cover_nothing() -> None:
    assert len(cover(np.zeros((0, 3, 2)), 4, 4).faces) == 0


def test_neighbours_leave_no_pixel_between_them() -> None:
    """A square of two faces whose diagonal runs through pixel centres."""
    square = np.array([[[0, 0], [6, 0], [6, 6]], [[0, 0], [6, 6], [0, 6]]], dtype=float)
    found = cover(square, 7, 7)
    assert len(set(zip(found.rows, found.columns))) == 49


def test_the_nearest_face_is_seen() -> None:
    corners = np.array([[[0, 0], [8, 0], [0, 8]], [[0, 0], [4, 0], [0, 4]]], dtype=float)
    found = cover(corners, 9, 9)
    seen = nearest(found, np.where(found.faces == 1, 1.0, 2.0), 9, 9)
    assert found.faces[seen[1, 1]] == 1
    assert found.faces[seen[6, 1]] == 0
    assert seen[8, 8] == -1
