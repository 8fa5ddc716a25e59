"""The surface of Gaussians: its place, its closedness, and the parts that are left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from exporting.mesh import simplify
from exporting.mesh.fusion import Field, fuse, outline, outline_level, surface, without_litter
from exporting.mesh.rim import fitted
from exporting.mesh.simplify import open_edges, simplified, unpinched
from exporting.mesh.views import around, box_of, front_depth
from gaussian_renderer import render
from scene.cameras import orbit
from scene.gaussian_model import GaussianModel
from scene.meshes.raster import cover
from scene.meshes.sight import sight
from scene.projection import project
from tests.exporting.assets import on_surface, spiral

GRAIN = 0.03


def ball(radius: float = 0.5, count: int = 3000, opacity: float = 4.0) -> GaussianModel:
    """A sphere around the origin; opacity is a logit."""
    normals = spiral(count)
    found = on_surface(radius * normals, normals, torch.full((count, 3), 0.7), GRAIN)
    found.raw()["opacity"].data.fill_(opacity)
    return found


def ring(count: int = 4000) -> GaussianModel:
    """A torus around z with radii 0.5 and 0.2."""
    index = torch.arange(count, dtype=torch.float64)
    around_z, around_tube = 2 * torch.pi * index / count, index * torch.pi * (3 - 5**0.5)
    out = torch.stack([around_z.cos(), around_z.sin(), torch.zeros(count)], dim=-1)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    normals = around_tube.cos()[:, None] * out + around_tube.sin()[:, None] * up
    return on_surface(
        (0.5 * out + 0.2 * normals).float(), normals.float(), torch.full((count, 3), 0.5), GRAIN
    )


def joined(*parts: GaussianModel) -> GaussianModel:
    return GaussianModel(
        {name: torch.cat([part.raw()[name].detach() for part in parts]) for name in parts[0].raw()}
    )


def mesh_of(gaussians: GaussianModel, resolution: int = 40, views: int = 24) -> trimesh.Trimesh:
    box = box_of(gaussians)
    field = fuse(gaussians, box, resolution, views)
    return trimesh.Trimesh(*surface(field, outline_level(field, gaussians, box)), process=False)


def test_the_box_holds_the_asset_but_no_strays() -> None:
    stray = ball(0.01, 1)
    stray.raw()["xyz"].data += 9.0
    faint = ball(3.0, 500, opacity=-4.0)
    box = box_of(joined(ball(), stray, faint))
    assert box.grain == pytest.approx(GRAIN)
    assert float(box.low.min()) == pytest.approx(-0.5 - 3 * GRAIN, abs=0.03)
    assert float(box.high.max()) == pytest.approx(0.5 + 3 * GRAIN, abs=0.03)


def test_cameras_see_the_whole_box_and_all_sides() -> None:
    box = replace(box_of(ball()), low=torch.tensor([0.0, -1.0, 2.0]), high=torch.tensor([1.0, 3.0, 2.5]))
    cameras = around(box, 40, 100, torch.zeros(1).device)
    corners = torch.cartesian_prod(*torch.stack([box.low, box.high], dim=1))
    for view in range(40):
        seen = project(cameras[view : view + 1], corners)
        assert bool((seen.z > 0).all())
        assert float(torch.stack([seen.x, seen.y]).min()) > -0.5
        assert float(torch.stack([seen.x, seen.y]).max()) < 99.5
    directions = torch.nn.functional.normalize(cameras.positions - box.middle, dim=-1)
    assert float(directions.mean(dim=0).norm()) < 0.05
    # From everywhere a camera is near: within 30 degrees.
    assert float((spiral(500) @ directions.T).amax(dim=1).min()) > 0.86


@pytest.mark.parametrize("opacity", [4.0, -1.5])
def test_depth_is_that_of_the_front_even_if_the_back_shines_through(opacity: float) -> None:
    gaussians = ball(opacity=opacity)
    camera = around(box_of(gaussians), 1, 64, gaussians.device)
    depth = front_depth(gaussians, camera)
    distance = float(camera.positions.norm())
    assert float(depth[32, 32]) == pytest.approx(distance - 0.5, abs=GRAIN)
    assert torch.isinf(depth[0, 0])
    if opacity < 0:
        out = render(gaussians, camera, torch.zeros(3))
        mean = float((out.depth / out.alpha)[0, 0, 32, 32].detach())
        assert mean > distance - 0.5 + 2 * GRAIN


def test_a_ball_is_a_closed_ball() -> None:
    mesh = mesh_of(ball())
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.euler_number == 2
    # What is seen of it ends about a grain outside of the middles of its Gaussians.
    radii = np.linalg.norm(mesh.vertices, axis=1)
    assert radii.mean() == pytest.approx(0.5 + GRAIN / 2, abs=GRAIN)
    assert radii.std() < GRAIN / 3
    assert mesh.volume > 0


def test_a_hole_stays_a_hole() -> None:
    mesh = mesh_of(ring())
    assert mesh.is_watertight
    assert mesh.euler_number == 0
    assert mesh.volume == pytest.approx(2 * np.pi**2 * 0.5 * (0.2 + GRAIN / 2) ** 2, rel=0.15)


def test_outlines_are_those_of_the_gaussians() -> None:
    gaussians = ring()
    mesh = mesh_of(gaussians)
    cameras = around(box_of(gaussians), 5, 128, gaussians.device)
    with torch.no_grad():
        alpha = render(gaussians, cameras, torch.zeros(3)).alpha[:, 0].numpy() >= 0.5

    seen = np.stack([outline(cameras[view : view + 1], mesh.vertices, mesh.faces) for view in range(5)])
    assert (alpha & seen).sum() / (alpha | seen).sum() > 0.96


@pytest.mark.parametrize("radius", [0.5, 0.54])
def test_a_surface_is_moved_to_where_alpha_is_a_half(radius: float) -> None:
    """Balls are too small and too large by four percent, whose outlines agree by less than 0.94."""
    gaussians = ball()
    box = box_of(gaussians)
    start = trimesh.creation.icosphere(3, radius)
    vertices = fitted(gaussians, box, start.vertices, start.faces, 16)
    cameras = orbit([10.0, 130.0, 250.0], [20.0, 80.0, 140.0], 3.0, 0.5, 128, 128)
    with torch.no_grad():
        alpha = render(gaussians, cameras, torch.zeros(3)).alpha[:, 0].numpy() >= 0.5
    seen = np.stack([outline(cameras[view : view + 1], vertices, start.faces) for view in range(3)])
    assert (alpha & seen).sum() / (alpha | seen).sum() > 0.975
    mesh = trimesh.Trimesh(vertices, start.faces, process=False)
    assert mesh.is_watertight
    assert np.linalg.norm(vertices, axis=1).std() < GRAIN / 3


def test_a_view_of_a_mesh_is_that_of_all_its_faces() -> None:
    """A torus hides itself: its nearest faces, with depths and places, are found without the back faces."""
    mesh = trimesh.creation.torus(0.5, 0.2)
    camera = orbit([30.0], [60.0], 3.0, 0.6, 48, 48)
    seen = sight(camera, mesh.vertices, mesh.faces)
    points = (mesh.vertices[mesh.faces[seen.faces]] * seen.weights[:, :, None]).sum(axis=1)
    there = project(camera, torch.from_numpy(points).float())
    assert np.array_equal(there.pixels(48).numpy(), seen.pixels)
    np.testing.assert_allclose(there.z.numpy(), seen.z, atol=1e-5)
    corners = project(camera, torch.from_numpy(mesh.vertices).float())
    x, y, z = (values.double().numpy() for values in corners)
    every = cover(np.stack([x, y], axis=-1)[mesh.faces], 48, 48)
    depth = np.full(48 * 48, np.inf)
    np.minimum.at(
        depth, every.rows * 48 + every.columns, 1 / (every.weights / z[mesh.faces[every.faces]]).sum(axis=1)
    )
    np.testing.assert_allclose(seen.image(48).ravel(), depth, atol=1e-9)


def test_what_nobody_sees_is_inside() -> None:
    """A ball in a ball makes one surface."""
    mesh = mesh_of(joined(ball(0.5), ball(0.2)))
    assert mesh.is_watertight
    assert mesh.body_count == 1
    assert np.linalg.norm(mesh.vertices, axis=1).min() > 0.45


def test_litter_and_bubbles_go() -> None:
    values = np.ones((20, 20, 20), dtype=np.float32)
    values[3:15, 3:15, 3:15] = -1
    values[8, 8, 8] = 0.9
    values[17, 17, 17] = -1
    kept = without_litter(values, 0.3)
    below = kept < 0.3
    assert below[8, 8, 8]
    assert not below[17, 17, 17]
    changed = kept != values
    assert changed.sum() == 2


def test_two_large_parts_stay() -> None:
    other = ball(0.3)
    other.raw()["xyz"].data[:, 0] += 1.2
    mesh = mesh_of(joined(ball(0.5), other), resolution=60)
    assert mesh.body_count == 2
    assert mesh.is_watertight


def test_an_asset_without_a_surface_gets_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"^the asset is so faint"):
        mesh_of(ball(count=5, opacity=-6.0))


def test_without_anything_inside_there_is_no_surface() -> None:
    with pytest.raises(ValueError, match=r"^the asset is so faint"):
        surface(Field(np.ones((4, 4, 4), dtype=np.float32), np.zeros(3), 1.0), 0.2)


def test_fewer_faces_are_still_closed_and_in_place() -> None:
    full = mesh_of(ball())
    vertices, faces = simplified(full.vertices, full.faces, 500)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert 400 <= len(faces) <= 500
    assert len(open_edges(faces)) == 0
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(full.volume, rel=0.02)
    assert len(simplified(full.vertices, full.faces, 10**6)[1]) == len(full.faces)


def two_wedges(touching: str) -> tuple[np.ndarray, np.ndarray]:
    """Two tetrahedra that have an edge, or a vertex, in common."""
    edge = [[0, 0, 0], [0, 0, 1]]
    vertices = np.array([*edge, [1, 0, 0], [1, 1, 0], [-1, 0, 0], [-1, -1, 0], [-1, 1, 2]], dtype=float)
    tetrahedra = [(0, 1, 2, 3), (0, 1, 4, 5) if touching == "edge" else (0, 6, 4, 5)]
    faces = []
    for a, b, c, d in tetrahedra:
        some = [(a, b, c), (a, d, b), (a, c, d), (b, d, c)]
        corners = vertices[[a, b, c, d]]
        outward = np.linalg.det(corners[1:] - corners[0]) < 0
        faces += some if outward else [face[::-1] for face in some]
    return vertices, np.array(faces)


@pytest.mark.parametrize("touching", ["edge", "vertex"])
@pytest.mark.parametrize("seed", range(6))
def test_sheets_that_touch_are_parted(touching: str, seed: int) -> None:
    vertices, faces = two_wedges(touching)
    faces = np.random.default_rng(seed).permutation(faces)
    assert (len(open_edges(faces)) > 0) == (touching == "edge")
    parted, found = unpinched(vertices, faces)
    assert len(open_edges(found)) == 0
    assert np.array_equal(parted[found], vertices[faces])
    mesh = trimesh.Trimesh(parted, found, process=False)
    assert mesh.is_watertight
    assert mesh.body_count == 2


def test_a_mesh_that_is_not_closed_stays_as_it_is() -> None:
    vertices, faces = two_wedges("vertex")
    same, found = unpinched(vertices, faces[1:])
    assert np.array_equal(found, faces[1:])
    assert np.array_equal(same, vertices)
    assert len(open_edges(found)) == 3


def test_a_face_turned_over_is_told() -> None:
    _, faces = two_wedges("vertex")
    faces[0] = faces[0, ::-1]
    assert len(open_edges(faces)) == 3
    assert simplify.unpinched(np.zeros((7, 3)), faces)[1] is faces
