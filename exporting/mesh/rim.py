"""Move a mesh's surface until its outlines are those of the Gaussians, from wherever one looks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
import trimesh
from numpy.typing import NDArray
from scipy.sparse import coo_array, diags_array
from scipy.sparse.linalg import spsolve

from exporting.mesh.options import OUTLINE_ROUNDS
from exporting.mesh.simplify import Faces, Vertices
from exporting.mesh.views import Box, around, size_for
from gaussian_renderer import Gaussians, render
from scene.cameras import Cameras
from scene.meshes.sight import faces_camera, sight
from scene.projection import project

MAX_VIEW = 512
REACH = 6
"""How far from the mesh's outline, in pixels, that of the Gaussians is looked for."""
NEAR = 1.5
"""How far from the outline, in pixels, an edge still belongs to it."""
STIFFNESS = 1.0
"""How much neighbours hold on to each other, beside what views show of a vertex that many of them see at the rim."""


@torch.no_grad()
def fitted(
    gaussians: Gaussians,
    box: Box,
    vertices: Vertices,
    faces: Faces,
    count: int,
    on_view: Callable[[], None] = lambda: None,
) -> Vertices:
    """The vertices [V, 3] of a closed mesh, moved along their normals so that alpha is a half at its rim. `on_view` is
    called after each of the `count` cameras all around, of each of the rounds.

    One level of a field is too much for thin parts and too little for thick ones. Where no camera has a place at the
    rim, as in a hollow, the surface goes along with its neighbours.
    """
    cameras = around(box, count, size_for(box, box.grain / 2, MAX_VIEW), gaussians.means.device)
    edges, sides = _edges(faces)
    for _ in range(OUTLINE_ROUNDS):
        normals = np.asarray(trimesh.Trimesh(vertices, faces, process=False).vertex_normals)
        moves, weights = np.zeros((2, len(vertices)))
        for view in range(count):
            ends, away, weight = _offsets(
                gaussians, box, cameras[view : view + 1], vertices, faces, normals, edges, sides
            )
            for end in ends.T:
                moves += np.bincount(end, weights=away * weight, minlength=len(vertices))
                weights += np.bincount(end, weights=weight, minlength=len(vertices))
            on_view()
        moved = _spread(edges, moves, weights)
        vertices = vertices + normals * moved.clip(-2 * box.grain, 2 * box.grain)[:, None]
    return vertices


def _edges(faces: Faces) -> tuple[Faces, Faces]:
    """The edges [E, 2] of a closed mesh, each once, and the faces [E, 2] on both sides of it."""
    half = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    order = np.lexsort((half.max(axis=1), half.min(axis=1)))
    return half[order[::2]], (order // 3).reshape(-1, 2)


def _offsets(
    gaussians: Gaussians,
    box: Box,
    camera: Cameras,
    vertices: Vertices,
    faces: Faces,
    normals: Vertices,
    edges: Faces,
    sides: Faces,
) -> tuple[Faces, NDArray[np.float64], NDArray[np.float64]]:
    """Edges [R, 2] at the rim as the one camera sees it, how far [R] out along the normals alpha falls below a half, and
    the lengths [R] of the edges in pixels."""
    size = camera.width
    device = gaussians.means.device
    alpha = render(gaussians, camera, torch.zeros(3, device=device)).alpha
    seen = project(camera, torch.from_numpy(vertices).float().to(device))
    screen = torch.stack([seen.x, seen.y], dim=-1).double().numpy(force=True)
    front = faces_camera(screen[faces])
    rim = np.flatnonzero(front[sides[:, 0]] != front[sides[:, 1]])
    ends = edges[rim]
    middle, along = screen[ends].mean(axis=1), screen[ends[:, 1]] - screen[ends[:, 0]]
    length = np.linalg.norm(along, axis=1)
    out = np.stack([along[:, 1], -along[:, 0]], axis=1) / np.maximum(length, 1e-9)[:, None]
    (rotation,) = camera.viewmats[:, :2, :3].double().numpy(force=True)
    normal = normals[ends].mean(axis=1) @ rotation.T
    facing = (normal * out).sum(axis=1)
    out, facing = out * np.sign(facing)[:, None], np.abs(facing)

    covered = torch.zeros(size * size, device=device)
    covered[torch.from_numpy(sight(camera, vertices, faces).pixels).to(device)] = 1.0
    steps = np.linspace(-REACH, REACH, 4 * REACH + 1)
    points = torch.from_numpy(middle[:, None] + steps[:, None] * out[:, None]).float().to(device)
    both = torch.cat([alpha, covered.reshape(1, 1, size, size)], dim=1)
    grid = points[None] * (2 / (size - 1)) - 1
    profiles = (
        F.grid_sample(both, grid, align_corners=True, padding_mode="border")[0].double().numpy(force=True)
    )
    # An edge may lie a little inside of the rim, behind others. So both are measured.
    theirs, ours = (_fall(profile, steps) for profile in profiles)
    known = np.isfinite(theirs) & (np.abs(ours) < NEAR) & (facing > 0.5)
    scale = seen.z.double().numpy(force=True)[ends].mean(axis=1) / float(camera.focals[0, 0])
    # What juts out far is small: the rim is fitted to where most of it is, not to the mean.
    away = ((theirs[known] - ours[known]) * scale[known] / facing[known]).clip(-box.grain / 2, box.grain / 2)
    return ends[known], away, length[known]


def _fall(profile: NDArray[np.float64], steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """The place nearest to 0 where each row of the values [R, S] at the steps [S] falls below a half: [R], infinite if there
    is none."""
    before, after = profile[:, :-1], profile[:, 1:]
    falls = (before >= 0.5) & (after < 0.5)
    crossing = steps[:-1] + (before - 0.5) / np.where(falls, before - after, 1.0) * (steps[1] - steps[0])
    places = np.where(falls, crossing, np.inf)
    return places[np.arange(len(places)), np.abs(places).argmin(axis=1)]


def _spread(edges: Faces, moves: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far [V] each vertex moves: close to the mean moves / weights where there are weights, and smooth."""
    count = len(weights)
    if not weights.any():
        return np.zeros(count)
    usual = np.median(weights[weights > 0])
    ones = np.full(len(edges), STIFFNESS * usual)
    joined = coo_array((ones, (edges[:, 0], edges[:, 1])), shape=(count, count)).tocsr()
    joined = joined + joined.T
    # A little holds each vertex in place, also of a part that no camera has at the rim.
    own = weights + 1e-3 * usual
    return spsolve((diags_array(own + joined.sum(axis=1)) - joined).tocsc(), moves)
