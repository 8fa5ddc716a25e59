"""The texture of a mesh, and the files that others read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pygltflib
import pytest
import torch
import trimesh
from exported import compare, draw_glb, read_glb
from torch import Tensor

from exporting.formats import write_mesh
from exporting.mesh.bake import bake
from exporting.mesh.build import build_mesh
from exporting.mesh.options import MeshOptions
from exporting.mesh.raster import cover
from exporting.mesh.textured import TexturedMesh
from exporting.mesh.unwrap import unwrap
from exporting.mesh.views import Box
from scene.axes import OURS, Y_UP, turn
from scene.cameras import orbit
from scene.gaussian_model import GaussianModel
from tests.exporting.assets import on_surface, spiral

OPTIONS = MeshOptions(faces=800, texture=128, resolution=40, views=16)


def painted(count: int = 3000, opacity: float = 4.0, color: Tensor | None = None) -> GaussianModel:
    """A ball around (0.1, 0, 0.2), each place of its own colour, unless it is all of one; opacity is a logit."""
    normals = spiral(count)
    colors = 0.5 + 0.4 * normals if color is None else color.expand(count, 3)
    found = on_surface(0.5 * normals + torch.tensor([0.1, 0.0, 0.2]), normals, colors, 0.03)
    found.raw()["opacity"].data.fill_(opacity)
    return found


@pytest.fixture(scope="module")
def mesh() -> TexturedMesh:
    return build_mesh(painted(), OPTIONS)


def sphere(radius: float) -> trimesh.Trimesh:
    return trimesh.creation.icosphere(3, radius)


def baked(gaussians: GaussianModel, mesh: trimesh.Trimesh, size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Colours [N, 3] of texels and the places [N, 3] on the mesh that they are at."""
    origin, faces, places = unwrap(mesh.vertices, mesh.faces, size)
    vertices, normals = mesh.vertices[origin], mesh.vertex_normals[origin]
    box = Box(torch.tensor([-0.7] * 3), torch.tensor([0.7] * 3), 0.03)
    texture = bake(gaussians, box, vertices, normals, faces, places, size, 24)
    texels = cover(places[faces] * size - 0.5, size, size)
    points = (vertices[faces[texels.faces]] * texels.weights[:, :, None]).sum(axis=1)
    return texture[texels.rows, texels.columns] / 255, points


def test_charts_do_not_overlap_and_nothing_is_lost() -> None:
    ball = sphere(0.5)
    origin, faces, places = unwrap(ball.vertices, ball.faces, 256)
    assert np.array_equal(origin[faces], ball.faces)
    assert places.min() >= 0
    assert places.max() <= 1
    texels = cover(places[faces] * 256 - 0.5, 256, 256)
    inside = (texels.weights > 0.01).all(axis=1)
    pixels = (texels.rows * 256 + texels.columns)[inside]
    assert len(np.unique(pixels)) == len(pixels)
    assert len(pixels) > 0.4 * 256**2


def test_each_texel_has_the_colour_of_its_place() -> None:
    normals = spiral(6000)
    gaussians = on_surface(0.5 * normals, normals, 0.5 + 0.4 * normals, 0.02)
    colors, points = baked(gaussians, sphere(0.5))
    truth = 0.5 + 0.4 * points / np.linalg.norm(points, axis=1, keepdims=True)
    # Half a texel astray would be 0.008.
    assert np.abs(colors - truth).mean() < 0.004
    assert np.abs(colors - truth).max() < 0.02


def test_the_background_does_not_come_through() -> None:
    """A ball with gaps all over has its own colour, undimmed and unwhitened."""
    color = torch.tensor([0.9, 0.6, 0.2])
    normals = spiral(500)
    gaussians = on_surface(0.5 * normals, normals, color.expand(500, 3), 0.02)
    gaussians.raw()["opacity"].data.fill_(-1.0)
    colors, _ = baked(gaussians, sphere(0.5))
    assert np.abs(colors - color.numpy()).max() < 0.01


def test_what_stands_in_front_is_not_painted_on_what_is_behind() -> None:
    """A red ball between a blue plate and half of the cameras."""
    normals = spiral(3000)
    ball = on_surface(
        0.25 * normals + torch.tensor([0.4, 0.0, 0.0]),
        normals,
        torch.tensor([1.0, 0.0, 0.0]).expand(3000, 3),
        0.02,
    )
    grid = torch.cartesian_prod(torch.linspace(-0.5, 0.5, 60), torch.linspace(-0.5, 0.5, 60))
    flat = torch.cat([torch.zeros(3600, 1), grid], dim=1)
    plate = on_surface(
        flat,
        torch.tensor([1.0, 0.0, 0.0]).expand(3600, 3),
        torch.tensor([0.0, 0.0, 1.0]).expand(3600, 3),
        0.02,
    )
    both = GaussianModel({n: torch.cat([t.detach(), plate.raw()[n].detach()]) for n, t in ball.raw().items()})
    solid = trimesh.util.concatenate(
        [
            trimesh.creation.icosphere(3, 0.25).apply_translation([0.4, 0, 0]),
            trimesh.creation.box([0.02, 1.0, 1.0]).subdivide().subdivide(),
        ]
    )
    colors, points = baked(both, solid, 160)
    # Right behind the ball only cameras from the side look in.
    on_plate = np.abs(points[:, 0] - 0.01) < 1e-3
    assert on_plate.sum() > 500
    assert np.abs(colors[on_plate] - [0, 0, 1]).mean() < 0.02
    assert (colors[on_plate, 0] > 0.3).mean() < 0.01


def test_a_mesh_looks_like_its_gaussians(mesh: TexturedMesh, tmp_path: Path) -> None:
    gaussians = painted()
    write_mesh(tmp_path / "x.glb", mesh)
    cameras = orbit([0.0, 100.0, 200.0, 300.0], [60.0, 90.0, 120.0, 30.0], 3.0, 0.6, 96, 96)
    like, _ = compare(gaussians, draw_glb(tmp_path / "x.glb", cameras), cameras)
    assert like.psnr > 25
    assert like.ssim > 0.93
    assert like.outlines > 0.97
    # Another asset's renders are not alike: what is measured can be missed.
    other = painted(color=torch.tensor([0.2, 0.5, 0.5]))
    assert compare(other, draw_glb(tmp_path / "x.glb", cameras), cameras)[0].psnr < 22


def test_a_mesh_is_closed_and_small_enough(mesh: TexturedMesh) -> None:
    assert len(mesh.faces) <= OPTIONS.faces
    assert len(mesh.open_edges) == 0
    assert mesh.texture.shape == (128, 128, 3)
    whole = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    whole.merge_vertices(merge_tex=True, merge_norm=True)
    assert whole.is_watertight
    assert whole.volume > 0
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-5)
    out = mesh.vertices - np.array([0.1, 0.0, 0.2])
    assert (mesh.normals * out).sum(axis=1).min() > 0


def test_the_same_gaussians_give_the_same_mesh(mesh: TexturedMesh, tmp_path: Path) -> None:
    write_mesh(tmp_path / "a.glb", mesh)
    write_mesh(tmp_path / "b.glb", build_mesh(painted(), OPTIONS))
    assert (tmp_path / "a.glb").read_bytes() == (tmp_path / "b.glb").read_bytes()


@pytest.mark.parametrize("axes", [None, OURS, "z,-y"])
@pytest.mark.parametrize("suffix", [".glb", ".obj"])
def test_trimesh_reads_the_same_mesh(
    mesh: TexturedMesh, tmp_path: Path, suffix: str, axes: str | None
) -> None:
    path = tmp_path / f"two words{suffix}"
    write_mesh(path, mesh, axes)
    read = read_glb(path)
    material = read.visual.material
    texture = material.baseColorTexture if suffix == ".glb" else material.image
    assert np.array_equal(np.array(texture.convert("RGB")), mesh.texture)
    expected = mesh.vertices @ turn(axes or Y_UP).numpy().T
    # Readers may number vertices anew, but keep the order of faces.
    assert len(read.faces) == len(mesh.faces)
    np.testing.assert_allclose(read.vertices[read.faces], expected[mesh.faces], atol=2e-6)
    places = read.visual.uv[read.faces]
    np.testing.assert_allclose(places[:, :, 0], mesh.places[mesh.faces][:, :, 0], atol=2e-6)
    np.testing.assert_allclose(1 - places[:, :, 1], mesh.places[mesh.faces][:, :, 1], atol=2e-6)
    assert read.volume > 0


def test_gltf_says_that_it_is_unlit(mesh: TexturedMesh, tmp_path: Path) -> None:
    write_mesh(tmp_path / "x.glb", mesh)
    document = pygltflib.GLTF2().load(str(tmp_path / "x.glb"))
    assert document.extensionsUsed == ["KHR_materials_unlit"]
    (material,) = document.materials
    assert material.extensions == {"KHR_materials_unlit": {}}
    assert material.pbrMetallicRoughness.metallicFactor == 0.0
    assert document.images[0].mimeType == "image/png"
    (primitive,) = document.meshes[0].primitives
    assert document.accessors[primitive.indices].count == 3 * len(mesh.faces)
