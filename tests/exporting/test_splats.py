"""Each format of Gaussians, opened by a program that is not ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gsply
import gsply.sog_reader
import numpy as np
import pygltflib
import pytest
import torch
from plyfile import PlyData
from pxr import Gf, Usd, UsdGeom, UsdVol
from scipy.spatial import cKDTree

from exporting.formats import SPLATS, WriteOptions, suffix_of, write_splats
from exporting.splats import sog, spz
from exporting.targets import Frame
from scene.asset import Asset, open_asset
from scene.axes import OURS, in_axes
from scene.gaussian_model import GaussianModel
from scene.splats.table import Splats
from tests.exporting.assets import random_gaussians
from tests.exporting.steps import STEPS, Tolerance, assert_within
from tests.exporting.usd_checks import remarks

COUNT = 700
"""Gaussians for more than two chunks of .compressed.ply, and no multiple of anything."""


@dataclass
class Read:
    """Gaussians that another program found in a file, with the fields of `Splats`."""

    means: np.ndarray
    log_scales: np.ndarray
    rotations: np.ndarray
    opacities: np.ndarray
    harmonics: np.ndarray


def of_gsply(data: gsply.GSData) -> Read:
    rest = data.shN if data.shN is not None else np.zeros((len(data.means), 0, 3))
    return Read(
        means=data.means,
        log_scales=data.scales,
        rotations=data.quats,
        opacities=1 / (1 + np.exp(-data.opacities.astype(np.float64))),
        harmonics=np.concatenate([data.sh0[:, None], rest], axis=1),
    )


def read_splat(path: Path) -> Read:
    """Read a file by antimatter15's description: 3 + 3 floats, RGBA, quaternion."""
    content = path.read_bytes()
    rows = [np.frombuffer(content[i : i + 32], np.uint8) for i in range(0, len(content), 32)]
    numbers = np.stack([row[:24].view("<f4") for row in rows])
    color = np.stack([row[24:28] for row in rows]) / 255
    rotations = (np.stack([row[28:] for row in rows]).astype(float) - 128) / 128
    dc = (color[:, None, :3] - 0.5) / 0.28209479177387814
    return Read(numbers[:, :3], np.log(numbers[:, 3:]), rotations, color[:, 3], dc)


def accessor(document: pygltflib.GLTF2, index: int) -> np.ndarray:
    a = document.accessors[index]
    view = document.bufferViews[a.bufferView]
    kind = {5126: "<f4", 5123: "<u2"}[a.componentType]
    columns = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[a.type]
    blob = document.binary_blob()
    values = np.frombuffer(blob, kind, a.count * columns, (view.byteOffset or 0) + (a.byteOffset or 0))
    assert view.byteLength == values.nbytes
    return values.reshape(a.count, columns) / (65535 if a.normalized else 1)


def read_glb(path: Path) -> Read:
    document = pygltflib.GLTF2().load(str(path))
    (primitive,) = document.meshes[0].primitives
    found = {name: index for name, index in vars(primitive.attributes).items() if index is not None}
    name = "KHR_gaussian_splatting:{}".format
    harmonics = [
        accessor(document, found[name(f"SH_DEGREE_{degree}_COEF_{order}")])
        for degree in range(4)
        for order in range(2 * degree + 1)
        if name(f"SH_DEGREE_{degree}_COEF_{order}") in found
    ]
    return Read(
        means=accessor(document, found["POSITION"]),
        log_scales=np.log(accessor(document, found[name("SCALE")])),
        rotations=accessor(document, found[name("ROTATION")])[:, [3, 0, 1, 2]],
        opacities=accessor(document, found[name("OPACITY")])[:, 0],
        harmonics=np.stack(harmonics, axis=1),
    )


def read_spz_glb(path: Path) -> Read:
    document = pygltflib.GLTF2().load(str(path))
    (primitive,) = document.meshes[0].primitives
    inner = primitive.extensions["KHR_gaussian_splatting"]["extensions"]
    view = document.bufferViews[inner["KHR_gaussian_splatting_compression_spz_2"]["bufferView"]]
    alone = path.with_suffix(".spz")
    alone.write_bytes(document.binary_blob()[view.byteOffset :][: view.byteLength])
    found = of_gsply(gsply.read_spz(alone))
    assert {accessor.count for accessor in document.accessors} == {len(found.means)}
    harmonics = sum(
        "_COEF_" in name for name, index in vars(primitive.attributes).items() if index is not None
    )
    assert harmonics == found.harmonics.shape[1] - 1
    return found


def read_usd(path: Path) -> Read:
    stage = Usd.Stage.Open(str(path))
    prim = UsdVol.ParticleField3DGaussianSplat.Get(
        stage, stage.GetDefaultPrim().GetPath().AppendChild("splats")
    )
    (low, high), count = prim.GetExtentAttr().Get(), len(prim.GetPositionsAttr().Get())
    assert UsdGeom.GetStageUpAxis(stage) == "Y"
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1
    assert remarks(stage) == []
    degree = prim.GetRadianceSphericalHarmonicsDegreeAttr().Get()
    coefficients = np.array(prim.GetRadianceSphericalHarmonicsCoefficientsAttr().Get())
    found = Read(
        means=np.array(prim.GetPositionsAttr().Get()),
        log_scales=np.log(np.array(prim.GetScalesAttr().Get())),
        rotations=np.array([(q.real, *q.imaginary) for q in prim.GetOrientationsAttr().Get()]),
        opacities=np.array(prim.GetOpacitiesAttr().Get()),
        harmonics=coefficients.reshape(count, (degree + 1) ** 2, 3),
    )
    assert (np.array(low) < found.means).all()
    assert (np.array(high) > found.means).all()
    return found


READERS = {
    ".ply": lambda path: of_gsply(gsply.plyread(path)),
    ".splat": read_splat,
    ".splat.glb": read_glb,
    ".spz": lambda path: of_gsply(gsply.read_spz(path)),
    ".spz.glb": read_spz_glb,
    ".splat.usdc": read_usd,
    ".splat.usdz": read_usd,
    ".compressed.ply": lambda path: of_gsply(gsply.plyread(path)),
    ".sog": lambda path: of_gsply(gsply.sog_reader.sogread(path)),
}


def test_every_format_has_a_reader() -> None:
    assert set(READERS) == set(STEPS) == set(SPLATS)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("suffix", READERS)
def test_another_program_reads_the_same_gaussians(tmp_path: Path, suffix: str, degree: int) -> None:
    path = tmp_path / f"asset{suffix}"
    gaussians = random_gaussians(COUNT, degree)
    write_splats(path, Asset(gaussians, OURS))
    found = READERS[suffix](path)
    ours = Splats.of(open_asset(path).gaussians)
    for name in ("means", "log_scales", "opacities", "harmonics"):
        np.testing.assert_allclose(getattr(ours, name), getattr(found, name), atol=2e-5, err_msg=name)
    lengths = np.linalg.norm(found.rotations, axis=1)
    np.testing.assert_allclose(np.abs((ours.rotations * found.rotations).sum(axis=1)) / lengths, 1, atol=1e-5)
    truth = Splats.of(in_axes(gaussians, SPLATS[suffix].frame.axes))
    assert_within(found, truth, STEPS[suffix])


def write_usd(path: Path, values: Splats) -> None:
    """Write Gaussians by usd-core in half precision, z up, half as large and as far as the prim's parent makes them."""
    stage = Usd.Stage.CreateNew(str(path))
    UsdGeom.SetStageUpAxis(stage, "Z")
    UsdGeom.Xform.Define(stage, "/twice").AddScaleOp().Set((2.0, 2.0, 2.0))
    field = UsdVol.ParticleField3DGaussianSplat.Define(stage, "/twice/field")
    field.CreatePositionsAttr(values.means / 2)
    field.CreateScaleshAttr((np.exp(values.log_scales) / 2).astype(np.float16))
    turns = values.rotations.astype(np.float16).tolist()
    field.CreateOrientationshAttr([Gf.Quath(w, x, y, z) for w, x, y, z in turns])
    field.CreateOpacitieshAttr(values.opacities.astype(np.float16))
    degree = round(values.harmonics.shape[1] ** 0.5) - 1
    field.CreateRadianceSphericalHarmonicsDegreeAttr(degree)
    field.CreateRadianceSphericalHarmonicsCoefficientsAttr(values.harmonics.reshape(-1, 3))
    stage.Save()


def for_gsply(values: Splats) -> gsply.GSData:
    return gsply.GSData(
        means=values.means,
        scales=values.log_scales,
        quats=values.rotations,
        opacities=np.log(values.opacities / (1 - values.opacities)),
        sh0=values.harmonics[:, 0],
        shN=values.harmonics[:, 1:],
    )


WRITERS = {
    ".3.spz": lambda path, values: gsply.write_spz(path, for_gsply(values), fractional_bits=13),
    ".4.spz": lambda path, values: gsply.write_spz(path, for_gsply(values), version=4, fractional_bits=13),
    ".splat.usda": write_usd,
}
HALF = Tolerance(1e-6, 1e-3, 1e-3, 5e-4, 1e-6, 1e-6)


@pytest.mark.parametrize("suffix", WRITERS)
def test_what_another_program_writes_is_read_within_the_formats_step(tmp_path: Path, suffix: str) -> None:
    """splat-transform writes the others: tests/programs."""
    path, values = tmp_path / f"x{suffix}", Splats.of(random_gaussians(COUNT, 3))
    WRITERS[suffix](path, values)
    found = Splats.of(open_asset(path).gaussians)
    assert_within(found, values, STEPS.get(suffix) or (HALF if suffix == ".splat.usda" else STEPS[".spz"]))


@pytest.mark.parametrize("suffix", SPLATS)
def test_the_same_gaussians_give_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    files = [tmp_path / folder / f"x{suffix}" for folder in "ab"]
    for file in files:
        write_splats(file, Asset(random_gaussians(40, 1), OURS))
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("suffix", SPLATS)
@pytest.mark.parametrize("degree", [0, 3])
def test_one_gaussian_is_enough(tmp_path: Path, suffix: str, degree: int) -> None:
    path = tmp_path / f"one{suffix}"
    gaussians = random_gaussians(1, degree)
    write_splats(path, Asset(gaussians, OURS))
    found = READERS[suffix](path)
    np.testing.assert_allclose(
        found.means, in_axes(gaussians, SPLATS[suffix].frame.axes).means.detach(), atol=1e-4
    )


def test_axes_can_be_chosen(tmp_path: Path) -> None:
    gaussians = random_gaussians(5, 1)
    write_splats(tmp_path / "x.ply", Asset(gaussians, OURS), Frame(OURS))
    again = GaussianModel.load_ply(tmp_path / "x.ply")
    assert all(torch.equal(again.raw()[name], tensor) for name, tensor in gaussians.raw().items())


def test_inrias_layout_is_kept(tmp_path: Path) -> None:
    write_splats(tmp_path / "x.ply", Asset(random_gaussians(5, 3), OURS))
    names = PlyData.read(tmp_path / "x.ply")["vertex"].data.dtype.names
    assert len(names) == 62
    assert names[:9] == ("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2")


def test_gltf_says_what_it_is(tmp_path: Path) -> None:
    gaussians = random_gaussians(COUNT, 0)
    write_splats(tmp_path / "x.splat.glb", Asset(gaussians, OURS))
    document = pygltflib.GLTF2().load(str(tmp_path / "x.splat.glb"))
    (primitive,) = document.meshes[0].primitives
    assert document.extensionsUsed == ["KHR_gaussian_splatting"]
    assert primitive.mode == pygltflib.POINTS
    extension = primitive.extensions["KHR_gaussian_splatting"]
    assert extension["kernel"] == "ellipse"
    assert extension["colorSpace"] == "srgb_rec709_display"
    position = document.accessors[primitive.attributes.POSITION]
    means = accessor(document, primitive.attributes.POSITION)
    assert position.min == means.min(axis=0).tolist()
    assert position.max == means.max(axis=0).tolist()
    # Points for programs that do not know the extension: light, not sRGB.
    color = accessor(document, primitive.attributes.COLOR_0)
    srgb = Splats.of(gaussians).colors.astype(np.float64)
    gamma = np.where(color <= 0.0031308, 12.92 * color, 1.055 * np.maximum(color, 1e-9) ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(gamma[:, :3], srgb, atol=1e-3)


def test_splat_begins_with_what_matters_most(tmp_path: Path) -> None:
    write_splats(tmp_path / "x.splat", Asset(random_gaussians(COUNT, 0), OURS))
    found = read_splat(tmp_path / "x.splat")
    weight = np.exp(found.log_scales.sum(axis=1)) * found.opacities
    assert np.corrcoef(np.argsort(-weight, kind="stable"), np.arange(COUNT))[0, 1] > 0.99


@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0, 5000.0, 4e6])
def test_spz_uses_its_24_bits(tmp_path: Path, size: float) -> None:
    gaussians = random_gaussians(50, 0)
    gaussians.raw()["xyz"].data *= size / gaussians.means.abs().max()
    write_splats(tmp_path / "x.spz", Asset(gaussians, OURS))
    means = in_axes(gaussians, "y,z").means.detach().numpy()
    found = gsply.read_spz(tmp_path / "x.spz").means
    assert np.abs(found - means).max() <= max(size * 2**-17, 2**-13 if size < 2000 else size * 2**-22)


@pytest.mark.parametrize("degree", [0, 3])
def test_spz_of_version_4_holds_what_version_3_holds(tmp_path: Path, degree: int) -> None:
    asset, old, new = Asset(random_gaussians(COUNT, degree), OURS), tmp_path / "3.spz", tmp_path / "4.spz"
    write_splats(old, asset)
    write_splats(new, asset, how=WriteOptions(spz_version=4))
    assert new.read_bytes()[:8] == b"NGSP\x04\0\0\0"
    for read in (
        lambda path: of_gsply(gsply.read_spz(path)),
        lambda path: Splats.of(open_asset(path).gaussians),
    ):
        before, after = read(old), read(new)
        for name in ("means", "log_scales", "rotations", "opacities", "harmonics"):
            np.testing.assert_array_equal(getattr(after, name), getattr(before, name), err_msg=name)
    gsply.write_spz(tmp_path / "other.spz", gsply.read_spz(old), version=4)
    # Its steps are 2⁻¹².
    found = open_asset(tmp_path / "other.spz").gaussians.means
    torch.testing.assert_close(found, open_asset(old).gaussians.means, atol=2**-12, rtol=0)


def test_what_spz_cannot_hold_gets_one_sentence(tmp_path: Path) -> None:
    gaussians = random_gaussians(2, 0)
    gaussians.raw()["xyz"].data[0, 0] = 5e6
    with pytest.raises(ValueError, match=r"^a Gaussian is 5e\+06 units out, but \.spz holds"):
        write_splats(tmp_path / "x.spz", Asset(gaussians, OURS))
    assert not (tmp_path / "x.spz").exists()
    assert spz.fraction_bits(0.0) == 16


def test_sog_clusters_harmonics_of_many_gaussians(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight kinds of Gaussians are found again, with labels for 64 entries only."""
    monkeypatch.setattr(sog, "MAX_PALETTE", 64)
    monkeypatch.setattr(sog, "CLUSTERED_PALETTE", 64)
    gaussians = random_gaussians(COUNT, 2)
    kinds = gaussians.raw()["f_rest"].data[:8].clone()
    gaussians.raw()["f_rest"].data = kinds[torch.arange(COUNT) % 8]
    write_splats(tmp_path / "x.sog", Asset(gaussians, OURS))
    found = of_gsply(gsply.sog_reader.sogread(tmp_path / "x.sog"))
    truth = Splats.of(in_axes(gaussians, SPLATS[".sog"].frame.axes))
    row = cKDTree(truth.means).query(found.means)[1]
    assert np.abs(found.harmonics - truth.harmonics[row])[:, 1:].max() < 0.03


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.ply", ".ply"),
        ("a.compressed.ply", ".compressed.ply"),
        ("A.SPLAT.GLB", ".splat.glb"),
        ("a.b.glb", ".glb"),
    ],
)
def test_the_name_tells_the_format(name: str, suffix: str) -> None:
    assert suffix_of(Path("folder") / name) == suffix


@pytest.mark.parametrize("name", ["a", "a.fbx", ".ply", "a.ply.gz"])
def test_other_names_get_one_sentence(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"^the output is .* must end in one of \.3mf, \.compressed\.ply, \.glb"
    ):
        suffix_of(Path(name))
