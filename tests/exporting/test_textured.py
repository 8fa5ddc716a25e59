"""The texture of a mesh, and the files that others read."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pygltflib
import pytest
import torch
import trimesh
from exported import compare, draw_glb, read_glb
from PIL import Image
from pxr import Ar, Usd, UsdGeom, UsdShade
from torch import Tensor

from exporting.formats import MESHES, WriteOptions, write_mesh
from exporting.mesh.bake import bake
from exporting.mesh.build import build_mesh
from exporting.mesh.options import MeshOptions
from exporting.mesh.textured import TexturedMesh
from exporting.mesh.unwrap import unwrap
from exporting.mesh.views import Box
from exporting.pose import Pose
from exporting.targets import Frame
from scene.axes import OURS, Y_UP, turn
from scene.cameras import orbit
from scene.gaussian_model import GaussianModel
from scene.meshes.raster import cover
from scene.meshes.sample import sample_mesh
from tests.exporting.assets import on_surface, spiral
from tests.exporting.usd_checks import remarks

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
    again = build_mesh(painted(), OPTIONS)
    for suffix in MESHES:
        write_mesh(tmp_path / f"a/x{suffix}", mesh)
        write_mesh(tmp_path / f"b/x{suffix}", again)
        assert (tmp_path / f"a/x{suffix}").read_bytes() == (tmp_path / f"b/x{suffix}").read_bytes()


@pytest.mark.parametrize("axes", [None, "z,-y", "z,x,left"])
@pytest.mark.parametrize("suffix", [".glb", ".obj"])
def test_trimesh_reads_the_same_mesh(
    mesh: TexturedMesh, tmp_path: Path, suffix: str, axes: str | None
) -> None:
    path = tmp_path / f"two words{suffix}"
    write_mesh(path, mesh, None if axes is None else Frame(axes))
    read = read_glb(path)
    material = read.visual.material
    texture = material.baseColorTexture if suffix == ".glb" else material.image
    assert np.array_equal(np.array(texture.convert("RGB")), mesh.texture)
    expected = mesh.vertices @ turn(axes or Y_UP).numpy().T
    # A mirrored face goes round the other way.
    faces = mesh.faces[:, ::-1] if axes == "z,x,left" else mesh.faces
    # Readers may number vertices anew, but keep the order of faces.
    assert len(read.faces) == len(faces)
    np.testing.assert_allclose(read.vertices[read.faces], expected[faces], atol=2e-6)
    places = read.visual.uv[read.faces]
    np.testing.assert_allclose(places[:, :, 0], mesh.places[faces][:, :, 0], atol=2e-6)
    np.testing.assert_allclose(1 - places[:, :, 1], mesh.places[faces][:, :, 1], atol=2e-6)
    assert read.volume > 0


@pytest.mark.parametrize("suffix", [".stl", ".3mf", ".mesh.ply"])
def test_merged_meshes_are_watertight_and_of_the_right_size_to_trimesh(
    mesh: TexturedMesh, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"x{suffix}"
    write_mesh(path, mesh, pose=Pose(0.2, 0.7), how=WriteOptions(merge=True))
    read = trimesh.load_mesh(path, process=suffix == ".stl")
    unit, axes = (1, OURS) if suffix == ".mesh.ply" else (1000, "z,-y")
    assert read.is_watertight
    assert read.volume == pytest.approx(0.2**3 * unit**3 * trimesh.Trimesh(*mesh.merged).volume, rel=1e-4)
    expected = (0.2 * mesh.vertices @ turn(axes).numpy().T + [0, 0, 0.7]) * unit
    np.testing.assert_allclose(read.bounds, [expected.min(axis=0), expected.max(axis=0)], rtol=1e-5)
    if suffix == ".3mf":
        assert read.units == "millimeter"
    if suffix == ".mesh.ply":
        colors = read.visual.vertex_colors[:, :3] / 255
        directions = (read.vertices - [0.02, 0.0, 0.74]) / 0.1
        assert np.abs(colors - (0.5 + 0.4 * directions)).mean() < 0.02


def test_a_3mf_paints_its_corners(mesh: TexturedMesh, tmp_path: Path) -> None:
    write_mesh(tmp_path / "a<b.3mf", mesh)
    with zipfile.ZipFile(tmp_path / "a<b.3mf") as bundle:
        texture = np.array(Image.open(bundle.open("3D/Textures/texture.png")))
        model = ElementTree.parse(bundle.open("3D/3dmodel.model"))
    core, materials = (
        f"{{http://schemas.microsoft.com/3dmanufacturing/{kind}/2015/02}}" for kind in ("core", "material")
    )
    assert np.array_equal(texture, mesh.texture)
    assert [each.get("name") for each in model.iter(f"{core}object")] == ["a<b"]
    places = np.array(
        [[float(each.get(key)) for key in "uv"] for each in model.iter(f"{materials}tex2coord")]
    )
    corners = np.array([[int(each.get(f"p{i}")) for i in "123"] for each in model.iter(f"{core}triangle")])
    np.testing.assert_allclose(places[corners] * [1, -1] + [0, 1], mesh.places[mesh.faces], atol=2e-6)


@pytest.mark.parametrize("lit", [False, True])
@pytest.mark.parametrize("suffix", [".usdc", ".usdz"])
def test_usd_holds_the_same_mesh(mesh: TexturedMesh, tmp_path: Path, suffix: str, lit: bool) -> None:
    path = tmp_path / f"2 words{suffix}"
    write_mesh(path, mesh, how=WriteOptions(lit=lit))
    stage = Usd.Stage.Open(str(path))
    root = stage.GetDefaultPrim()
    shape = UsdGeom.Mesh(root.GetChild("mesh"))
    assert root.GetName() == "_2_words"
    assert (UsdGeom.GetStageUpAxis(stage), UsdGeom.GetStageMetersPerUnit(stage)) == ("Y", 1.0)
    np.testing.assert_allclose(shape.GetPointsAttr().Get(), mesh.vertices @ turn(Y_UP).numpy().T, atol=1e-6)
    assert np.array_equal(np.array(shape.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3), mesh.faces)
    places = np.array(UsdGeom.PrimvarsAPI(shape).GetPrimvar("st").Get())
    np.testing.assert_allclose(places * [1, -1] + [0, 1], mesh.places, atol=1e-6)
    material, _ = UsdShade.MaterialBindingAPI(shape).ComputeBoundMaterial()
    surface = material.ComputeSurfaceSource()[0]
    connected = [each.GetBaseName() for each in surface.GetInputs() if each.HasConnectedSource()]
    assert connected == ["diffuseColor" if lit else "emissiveColor"]
    picture = UsdShade.Shader(material.GetPrim().GetChild("texture")).GetInput("file").Get()
    content = Ar.GetResolver().OpenAsset(Ar.ResolvedPath(picture.resolvedPath)).GetBuffer()
    assert np.array_equal(np.array(Image.open(io.BytesIO(bytes(content)))), mesh.texture)
    assert remarks(stage) == []


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".mesh.ply", ".stl"])
def test_our_own_readers_find_its_surface_and_colours(
    mesh: TexturedMesh, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"x{suffix}"
    write_mesh(path, mesh, Frame(OURS))
    cloud = sample_mesh(str(path), 2000, torch.Generator().manual_seed(0))
    directions = cloud.points - torch.tensor([0.1, 0.0, 0.2])
    assert float((directions.norm(dim=1) - 0.52).abs().mean()) < 0.02
    if cloud.colors is not None:
        assert float((cloud.colors - 0.5 - 0.4 * directions / 0.52).abs().mean()) < 0.02
    assert (cloud.colors is None) == (suffix == ".stl")


def test_gltf_says_that_it_is_unlit_unless_it_is_lit(mesh: TexturedMesh, tmp_path: Path) -> None:
    write_mesh(tmp_path / "lit.glb", mesh, how=WriteOptions(lit=True))
    lit = pygltflib.GLTF2().load(str(tmp_path / "lit.glb"))
    assert lit.extensionsUsed == []
    assert lit.materials[0].extensions == {}
    assert lit.materials[0].pbrMetallicRoughness.roughnessFactor == 1.0
    assert lit.meshes[0].primitives[0].attributes.NORMAL is not None
    write_mesh(tmp_path / "a name.glb", mesh)
    document = pygltflib.GLTF2().load(str(tmp_path / "a name.glb"))
    assert document.extensionsUsed == ["KHR_materials_unlit"]
    (material,) = document.materials
    assert material.extensions == {"KHR_materials_unlit": {}}
    assert [document.nodes[0].name, document.meshes[0].name, material.name] == ["a name"] * 3
    assert material.pbrMetallicRoughness.metallicFactor == 0.0
    assert document.images[0].mimeType == "image/png"
    (primitive,) = document.meshes[0].primitives
    assert document.accessors[primitive.indices].count == 3 * len(mesh.faces)


def test_obj_has_names_and_a_material_that_blender_takes(mesh: TexturedMesh, tmp_path: Path) -> None:
    write_mesh(tmp_path / "a name.obj", mesh)
    lines = (tmp_path / "a name.obj").read_text().splitlines()
    assert [line for line in lines if line[0] not in "vf"] == [
        "mtllib a_name.mtl",
        "o a_name",
        "usemtl a_name",
    ]
    material = (tmp_path / "a_name.mtl").read_text().splitlines()
    assert material[0] == "newmtl a_name"
    assert "illum 1" in material
