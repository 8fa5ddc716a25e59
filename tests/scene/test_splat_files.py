"""Files of Gaussians as other programs write them, made here from each format's description."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gsply
import gsply.sog_reader
import numpy as np
import pytest
import torch
from PIL import Image
from plyfile import PlyData, PlyElement

from config.model_params import GAUSSIANS_SUFFIXES
from exporting.formats import SPLATS, USD, WriteOptions, write_splats
from exporting.splats import gltf
from exporting.targets import Frame
from gaussian_renderer import render
from scene.asset import NAMES, Asset, load_asset, open_asset
from scene.axes import OURS, Y_UP, in_axes
from scene.cameras import orbit
from scene.gaussian_model import GaussianModel
from scene.ply import OPAQUE
from scene.splats.table import Splats
from tests.exporting.assets import random_gaussians
from utils.rotation import quaternion_to_matrix
from utils.run_folder import RunFolder

LEAST_PSNR = {
    ".ply": 100,
    ".splat.glb": 100,
    ".splat.usdc": 100,
    ".splat.usdz": 100,
    ".spz": 40,
    ".spz.glb": 40,
    ".sog": 40,
    ".compressed.ply": 35,
    ".splat": 35,
}
"""What each format's steps leave, in dB, of an asset without harmonics."""


def picture(gaussians: GaussianModel) -> torch.Tensor:
    cameras = orbit([10.0, 130.0, 250.0], [40.0, 80.0, 120.0], 4.0, 0.6, 48, 48)
    return render(gaussians, cameras, torch.ones(3)).rgb.detach()


def written(path: Path, gaussians: GaussianModel, axes: str | None = None) -> Path:
    write_splats(path, Asset(gaussians, OURS), None if axes is None else Frame(axes))
    return path


@pytest.mark.parametrize("suffix", SPLATS)
def test_what_is_written_looks_the_same_when_it_is_read(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    gaussians = random_gaussians(300, 0 if suffix == ".splat" else 3)
    # USD knows no other way up, and nothing left-handed.
    for axes in (None, "z,-x" if suffix in USD else "-x,y,left"):
        path = written(tmp_path / f"x{suffix}", gaussians, axes)
        without_room = suffix in (".splat", ".spz")
        read = load_asset(path, axes=axes if without_room else None)
        error = float(((picture(read) - picture(gaussians)) ** 2).mean())
        assert -10 * np.log10(error) > LEAST_PSNR[suffix]
    assert len(caplog.messages) == (1 if without_room else 0)
    assert all("has no note of its axes" in each and "--input_axes" in each for each in caplog.messages)


def test_what_is_written_twice_is_the_same(tmp_path: Path) -> None:
    first = written(tmp_path / "a.ply", random_gaussians(30, 3))
    write_splats(tmp_path / "b.ply", open_asset(first))
    assert (tmp_path / "b.ply").read_bytes() == first.read_bytes()


def test_a_runs_own_file_needs_no_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = RunFolder(tmp_path / "run")
    gaussians = random_gaussians(3, 1)
    for path in (run.asset, run.point_cloud(10)):
        gaussians.save_ply(path)
        assert b"comment" not in path.read_bytes()
    run.config.touch()
    for path in (run.root, run.asset, run.point_cloud(10)):
        found = open_asset(path)
        assert found.axes == OURS
        assert torch.equal(found.gaussians.means, gaussians.means)
    assert not caplog.messages
    run.config.unlink()
    assert open_asset(run.asset).axes == OURS
    assert "up is taken as z and the front as x, as a run's asset.ply has them; --input_axes" in caplog.text
    assert open_asset(run.asset, "y,z").axes == "y,z"
    assert len(caplog.messages) == 1


def unnoted(splats: Splats, packed: bytes) -> bytes:
    """An .spz file of version 1 or 2 with those bytes for positions and rotations."""
    rest = [
        np.rint(splats.opacities * 255).astype("u1"),
        np.rint((splats.harmonics[:, 0] * 0.15 + 0.5) * 255).astype("u1"),
        np.rint((splats.log_scales + 10) * 16).astype("u1"),
        np.rint((splats.rotations[:, 1:] * np.sign(splats.rotations[:, :1]) + 1) * 127.5).astype("u1"),
        np.rint(splats.harmonics[:, 1:] * 128 + 128).astype("u1"),
    ]
    return packed + b"".join(each.tobytes() for each in rest)


@pytest.mark.parametrize("version", [1, 2])
def test_spz_of_earlier_versions(tmp_path: Path, version: int, caplog: pytest.LogCaptureFixture) -> None:
    splats, path = Splats.of(random_gaussians(20, 2)), tmp_path / "x.spz"
    whole = np.rint(splats.means * 2**10).astype("<i4").view("u1").reshape(-1, 4)[:, :3].tobytes()
    positions = splats.means.astype("<f2").tobytes() if version == 1 else whole
    head = struct.pack("<4sIIBBBB", b"NGSP", version, 20, 2, 10, 1, 0)
    path.write_bytes(gzip.compress(head + unnoted(splats, positions)))
    found = Splats.of(open_asset(path).gaussians)
    np.testing.assert_allclose(found.means, splats.means, atol=2e-3)
    if version == 2:
        np.testing.assert_allclose(found.means, gsply.read_spz(path).means, atol=1e-6)
    assert (np.abs((found.rotations * splats.rotations).sum(axis=1)) > 0.999).all()
    np.testing.assert_allclose(found.harmonics[:, 1:], splats.harmonics[:, 1:], atol=0.004)
    assert "is marked as antialiased, which is dropped" in caplog.text


def sog_v1(splats: Splats, folder: Path) -> None:
    """A folder as the first version of SOG has it: bounds in place of codebooks, logits for opacities."""

    def steps(values: np.ndarray, top: int) -> tuple[np.ndarray, dict[str, Any]]:
        low, high = values.min(axis=0), values.max(axis=0)
        shares = (values - low) / (high - low)
        return np.rint(shares * top).astype(int), {"mins": low.tolist(), "maxs": high.tolist()}

    def save(name: str, pixels: np.ndarray, width: int) -> None:
        image = np.full((len(pixels), 4), 255, "u1")
        image[:, : pixels.shape[1]] = pixels
        picture = Image.fromarray(image.reshape(-1, width, 4), "RGBA")
        picture.save(folder / f"{name}.webp", lossless=True, exact=True)

    count, side = len(splats.means), int(len(splats.means) ** 0.5)
    means, bounds = steps(np.sign(splats.means) * np.log1p(np.abs(splats.means)), 65535)
    scales, scale_bounds = steps(splats.log_scales, 255)
    logits = np.log(splats.opacities / (1 - splats.opacities))
    colors, color_bounds = steps(np.column_stack([splats.harmonics[:, 0], logits]), 255)
    rest = splats.harmonics[:, 1:]
    entries = np.zeros((64 * -(-count // 64), 15, 3))
    entries[:count] = np.rint((rest - rest.min()) / np.ptp(rest) * 255)
    place = np.abs(splats.rotations).argmax(axis=1)
    signed = splats.rotations * np.sign(np.take_along_axis(splats.rotations, place[:, None], axis=1))
    three = np.array([[v for i, v in enumerate(q) if i != p] for q, p in zip(signed, place)])
    save("means_l", means & 255, side)
    save("means_u", means >> 8, side)
    save("scales", scales, side)
    save("quats", np.column_stack([np.rint((three / 2**0.5 + 0.5) * 255), 252 + place]), side)
    save("sh0", colors, side)
    save("shN_centroids", entries.reshape(-1, 3), 64 * 15)
    numbers = np.arange(count)
    save("shN_labels", np.column_stack([numbers & 255, numbers >> 8]), side)
    meta = {
        "means": {"shape": [count, 3], **bounds, "files": ["means_l.webp", "means_u.webp"]},
        "scales": {"shape": [count, 3], **scale_bounds, "files": ["scales.webp"]},
        "quats": {"shape": [count, 4], "encoding": "quaternion_packed", "files": ["quats.webp"]},
        "sh0": {"shape": [count, 1, 4], **color_bounds, "files": ["sh0.webp"]},
        "shN": {
            "shape": [count, 45],
            "mins": float(rest.min()),
            "maxs": float(rest.max()),
            "quantization": 8,
            "files": ["shN_centroids.webp", "shN_labels.webp"],
        },
    }
    (folder / "meta.json").write_text(json.dumps(meta))


def test_sog_of_version_1_in_a_folder_its_meta_json_and_a_zipped_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    splats, folder = Splats.of(random_gaussians(100, 3)), tmp_path / "bundle"
    folder.mkdir()
    sog_v1(splats, folder)
    with zipfile.ZipFile(tmp_path / "x.sog", "w") as bundle:
        for file in folder.iterdir():
            bundle.write(file, f"nested/{file.name}")
    for path in (folder, folder / "meta.json", tmp_path / "x.sog"):
        found = open_asset(path)
        read = Splats.of(found.gaussians)
        assert found.axes == "-y,-z"
        np.testing.assert_allclose(read.means, splats.means, atol=2e-4)
        np.testing.assert_allclose(read.log_scales, splats.log_scales, atol=0.02)
        np.testing.assert_allclose(read.opacities, splats.opacities, atol=0.01)
        np.testing.assert_allclose(read.harmonics, splats.harmonics, atol=0.01)
        assert (np.abs((read.rotations * splats.rotations).sum(axis=1)) > 0.999).all()
    assert len(caplog.messages) == 3
    with zipfile.ZipFile(tmp_path / "flat.sog", "w") as bundle:
        for file in folder.iterdir():
            bundle.write(file, file.name)
    theirs = gsply.sog_reader.sogread(tmp_path / "flat.sog")
    np.testing.assert_allclose(read.means, theirs.means, atol=1e-5)
    np.testing.assert_allclose(read.harmonics[:, 1:], theirs.shN, atol=1e-5)


def test_compressed_ply_of_before_colours_had_bounds(tmp_path: Path) -> None:
    path = written(tmp_path / "x.compressed.ply", random_gaussians(300, 1))
    data = PlyData.read(path)
    chunk = data["chunk"].data
    old = np.zeros(
        len(chunk), [(name, "<f4") for name in chunk.dtype.names if name[-2:] not in ("_r", "_g", "_b")]
    )
    for name in old.dtype.names:
        old[name] = chunk[name]
    data["vertex"].data["packed_color"] = 0x336699FF
    PlyData([PlyElement.describe(old, "chunk"), data["vertex"]], byte_order="<").write(tmp_path / "old.ply")
    found = open_asset(tmp_path / "old.ply")
    colors = Splats.of(found.gaussians).colors
    np.testing.assert_allclose(colors, np.tile(np.array([0x33, 0x66, 0x99]) / 255, (300, 1)), atol=1e-6)
    # The note of axes is part of the element that was kept.
    assert found.axes == "-y,-z"
    assert torch.equal(found.gaussians.raw()["opacity"].detach(), torch.full((300, 1), OPAQUE))


def as_glb(gaussians: GaussianModel, change: Callable[[dict[str, Any]], None], binary: bytes = b"") -> bytes:
    """Our .splat.glb with its document changed, and bytes after its own."""
    content = gltf.encode(Splats.of(gaussians), "asset")
    length = struct.unpack_from("<I", content, 12)[0]
    document, rest = json.loads(content[20 : 20 + length]), content[28 + length :] + binary
    change(document)
    text = json.dumps(document).encode()
    head = struct.pack("<4sIII4s", b"glTF", 2, 28 + len(text) + len(rest), len(text), b"JSON")
    return head + text + struct.pack("<I4s", len(rest), b"BIN\0") + rest


def test_gltf_is_placed_by_its_nodes(tmp_path: Path) -> None:
    gaussians, half = random_gaussians(40, 3), 0.5**0.5

    def change(document: dict[str, Any]) -> None:
        document["nodes"] = [
            {"children": [1], "translation": [1, 2, 3]},
            {"mesh": 0, "rotation": [half, 0, 0, half], "scale": [2, 2, 2]},
        ]

    (tmp_path / "x.glb").write_bytes(as_glb(gaussians, change))
    found = open_asset(tmp_path / "x.glb")
    # A quarter of a turn about x takes y to z.
    turned = in_axes(gaussians, "z,-y", Y_UP)
    means = 2 * turned.means.detach() + torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(found.gaussians.means.detach(), means, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.gaussians.scales, 2 * gaussians.scales, atol=0, rtol=1e-5)
    torch.testing.assert_close(found.gaussians.shs, turned.shs, atol=1e-5, rtol=0)
    matrices = [quaternion_to_matrix(each.rotations.detach()) for each in (found.gaussians, turned)]
    torch.testing.assert_close(*matrices, atol=1e-5, rtol=0)


def test_gltf_with_spz_inside(tmp_path: Path) -> None:
    gaussians = random_gaussians(40, 1)
    packed = written(tmp_path / "x.spz", gaussians, OURS).read_bytes()

    def change(document: dict[str, Any]) -> None:
        views = document["bufferViews"]
        end = views[-1]["byteOffset"] + views[-1]["byteLength"]
        views.append({"buffer": 0, "byteOffset": end + -end % 4, "byteLength": len(packed)})
        inner = {"KHR_gaussian_splatting_compression_spz_2": {"bufferView": len(views) - 1}}
        document["meshes"][0]["primitives"][0]["extensions"]["KHR_gaussian_splatting"]["extensions"] = inner

    (tmp_path / "x.glb").write_bytes(as_glb(gaussians, change, packed))
    found = open_asset(tmp_path / "x.glb").gaussians
    assert torch.equal(found.means, open_asset(tmp_path / "x.spz").gaussians.means)


def changed(name: str, key: str, value: Any) -> Callable[[bytes], bytes]:
    """A change of a .sog file's meta.json."""

    def change(content: bytes) -> bytes:
        file, old = io.BytesIO(), zipfile.ZipFile(io.BytesIO(content))
        with zipfile.ZipFile(file, "w") as new:
            for entry in old.namelist():
                part = old.read(entry)
                if entry == "meta.json":
                    meta = json.loads(part)
                    (meta[name] if name else meta)[key] = value
                    part = json.dumps(meta).encode()
                new.writestr(entry, part)
        return file.getvalue()

    return change


def spz_with(offset: int, value: int, kind: str = "<I") -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        data = bytearray(gzip.decompress(content))
        struct.pack_into(kind, data, offset, value)
        return gzip.compress(bytes(data))

    return change


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content.replace(old, new)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("x.spz", lambda c: c[:-9], "ends"),
        ("x.spz", lambda c: c[:60] + b"\xff" + c[61:], "cannot be unzipped"),
        ("x.spz", lambda c: b"hello", "cannot be unzipped"),
        ("x.spz", lambda c: gzip.compress(b"hello" * 9), "does not start as an .spz file does"),
        ("x.spz", lambda c: struct.pack("<4sII", b"NGSP", 5, 9) + bytes(50), "version 5, but 1 to 4 are read"),
        ("x.spz", lambda c: struct.pack("<4sII", b"NGSP", 4, 9) + bytes(50), "has 0 streams, but an .spz file"),
        ("4.spz", lambda c: c[:-9], "claims a stream that is longer or shorter"),
        ("4.spz", lambda c: c.replace(b"\x28\xb5\x2f\xfd", bytes(4)), "damaged stream"),
        ("x.splat.usdc", lambda c: c[:99], "cannot be read as USD"),
        ("x.spz", spz_with(12, 5, "<B"), "harmonics of degree 5"),
        ("x.spz", spz_with(8, 4_000_000_000), "claims 4000000000 Gaussians"),
        ("x.spz", spz_with(8, 700), "claims 700 Gaussians, but ends within them"),
        ("x.splat", lambda c: c[:-1], "has 639 bytes, but a .splat file has 32"),
        ("x.splat", lambda c: b"", "holds no Gaussians"),
        ("x.splat", lambda c: np.float32("nan").tobytes() + c[4:], "1 values of 'position'"),
        ("x.splat", lambda c: c[:12] + np.float32(-1).tobytes() + c[16:], "1 values of 'scale'"),
        ("x.sog", lambda c: c[:-30], "cannot be read as the zip file"),
        ("x.sog", changed("", "version", 3), "version 3, but 1 and 2 are read"),
        ("x.sog", changed("", "count", 9_000_000), "claims 9000000 Gaussians in"),
        ("x.sog", changed("", "count", 500), "'means_l.webp' has 8 × 4 pixels, but 500 to"),
        ("x.sog", changed("means", "mins", [0, 0]), "means.mins of meta.json must be 3 finite numbers"),
        ("x.sog", changed("scales", "codebook", [1.0]), "scales names code 253 of 1"),
        ("x.sog", changed("quats", "files", ["../quats.webp"]), "quats.files of meta.json is"),
        ("x.sog", changed("shN", "bands", 4), "shN.bands of meta.json is 4"),
        ("x.splat.glb", replaced(b":SCALE", b":SKALE"), "lacks the attribute 'KHR_gaussian_splatting:SCALE'"),
        ("x.splat.glb", replaced(b'"ellipse"', b'"diamond"'), "kernel 'diamond'"),
        ("x.splat.glb", replaced(b'"KHR_gaussian_splatting":{', b'"KHR_gaussian_spletting":{'), "holds no KHR"),
        ("x.splat.glb", replaced(b'"mesh":0', b'"mesh":9'), "its JSON does not fit together"),
        ("x.splat.glb", lambda c: c[:-40], "claims more bytes than it has"),
        ("x.compressed.ply", replaced(b"packed_scale", b"packed_skale"), "lacks the property 'packed_scale'"),
        ("x.compressed.ply", replaced(b"uint packed_color", b"char packed_color"), "has int8 as 'packed_color'"),
        ("x.compressed.ply", replaced(b"chunk 1\n", b"chunk 9999999999\n"), "claims 9999999999 rows of 'chunk'"),
        ("x.compressed.ply", replaced(b"f_rest_8", b"f_test_8"), "20 rows of 8 f_rest properties"),
        ("x.compressed.ply", lambda c: c[:-5], "cannot be read as a PLY file"),
        ("x.ksplat", lambda c: c, "is of mkkellogg's viewer, which is not read here: give a .ply, .compressed"),
        ("x.txt", lambda c: b"hello", "is no file of Gaussians: give a .ply, .compressed.ply, .splat, .spz"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence_with_the_files_name(
    tmp_path: Path, name: str, change: Callable[[bytes], bytes], words: str
) -> None:
    suffix = name[1:] if name[1:] in SPLATS else ".splat"
    sound, how = tmp_path / f"sound{suffix}", WriteOptions(spz_version=4 if name == "4.spz" else 3)
    write_splats(sound, Asset(random_gaussians(20, 1), OURS), how=how)
    content = sound.read_bytes()
    path = tmp_path / name
    path.write_bytes(change(content))
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        open_asset(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert str(caught.value).count("\n") == 0


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    """Files that unpack to gigabytes are refused by what their headers claim, and no more is unpacked."""
    bomb = gzip.compress(struct.pack("<4sIIBBBB", b"NGSP", 3, 9_000_000, 3, 12, 0, 0) + bytes(10**7), 9)
    (tmp_path / "x.spz").write_bytes(bomb)
    with pytest.raises(ValueError, match="claims 9000000 Gaussians in"):
        open_asset(tmp_path / "x.spz")
    with zipfile.ZipFile(tmp_path / "x.sog", "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("meta.json", b" " * 10**8)
    with pytest.raises(ValueError, match=r"meta\.json has more than 1048576 bytes"):
        open_asset(tmp_path / "x.sog")


def test_training_takes_every_format_that_is_read() -> None:
    assert {*NAMES, ".ply"} == set(GAUSSIANS_SUFFIXES)


def test_the_content_counts_where_the_name_is_another(tmp_path: Path) -> None:
    gaussians = random_gaussians(5, 0)
    for suffix in (".ply", ".compressed.ply", ".spz", ".sog", ".splat.glb"):
        path = written(tmp_path / f"x{suffix}", gaussians).rename(tmp_path / "download")
        assert len(load_asset(path)) == 5
    written(tmp_path / "x.compressed.ply", gaussians).rename(tmp_path / "y.ply")
    assert len(load_asset(tmp_path / "y.ply")) == 5
