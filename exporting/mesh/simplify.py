"""Reduce the faces, and keep every edge between exactly two of them."""

from __future__ import annotations

import fast_simplification
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Vertices = NDArray[np.float64]
Faces = NDArray[np.int64]
SWAPS = 4


def simplified(vertices: Vertices, faces: Faces, count: int) -> tuple[Vertices, Faces]:
    """A surface of at most `count` faces, or a few more, by edge collapses with the least quadric error
    (Garland and Heckbert, 1997).
    """
    if len(faces) > count:
        fewer = fast_simplification.simplify(vertices, faces.astype(np.int32), target_count=count)
        vertices, faces = fewer[0].astype(np.float64), fewer[1].astype(np.int64)
    return unpinched(vertices, faces)


def unpinched(vertices: Vertices, faces: Faces) -> tuple[Vertices, Faces]:
    """A closed surface with vertices doubled where it touches itself, so that edges have two faces each.

    A collapse may bring two sheets together in an edge of four faces. Corners of faces are one vertex if one comes from
    the other by walking around it, from face to face across edges; at such an edge there are two ways to walk, of which
    one parts the sheets.
    """
    corners = np.arange(faces.size).reshape(-1, 3)
    # Half-edges: from a corner to the next one of its face.
    tails, heads = corners.ravel(), np.roll(corners, -1, axis=1).ravel()
    a, b = faces.ravel()[tails], faces.ravel()[heads]
    # Those of one edge together, and of one edge those of one direction together, so that they can be paired in order.
    order = np.lexsort((a, np.maximum(a, b), np.minimum(a, b)))
    forth, back = order[(a < b)[order]], order[(a > b)[order]]
    if len(forth) != len(back) or not (
        np.array_equal(a[forth], b[back]) and np.array_equal(b[forth], a[back])
    ):
        return vertices, faces  # not closed: found by `open_edges`
    for _ in range(SWAPS):
        pairs = np.concatenate(
            [np.stack([tails[forth], heads[back]]), np.stack([heads[forth], tails[back]])], axis=1
        )
        graph = coo_array((np.ones(pairs.shape[1]), tuple(pairs)), shape=(faces.size, faces.size))
        _, vertex = connected_components(graph, directed=False)
        edges = np.stack([vertex[tails[forth]], vertex[heads[forth]]])
        pinched = np.flatnonzero((edges[:, 1:] == edges[:, :-1]).all(axis=0))
        if len(pinched) == 0:
            break
        back[pinched], back[pinched + 1] = back[pinched + 1].copy(), back[pinched].copy()
    split = np.empty((vertex.max() + 1, 3))
    split[vertex] = vertices[faces.ravel()]
    return split, vertex.reshape(-1, 3).astype(np.int64)


def open_edges(faces: Faces) -> NDArray[np.int64]:
    """The edges [E, 2] that do not have exactly two faces, one on each side: none of a watertight mesh."""
    half = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    edges, which, counts = np.unique(np.sort(half, axis=1), axis=0, return_inverse=True, return_counts=True)
    forth = np.bincount(which.ravel(), weights=half[:, 0] < half[:, 1], minlength=len(edges))
    return edges[(counts != 2) | (forth != 1)]
