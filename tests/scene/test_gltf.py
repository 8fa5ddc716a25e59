"""glTF 2.0 as the specification and its extensions have it, in files that the tests write themselves."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from scene.meshes.colors import to_srgb
from scene.meshes.gltf_materials import transformed
from scene.meshes.sample import sample_mesh
from tests.scene.gltf_files import PLACES, QUARTERS, SQUARE, Document, glb

RED, GREEN, BLUE = np.eye(3)


def seen(path: str, count: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Points [N, 3] on a mesh and their colours [N, 3]."""
    cloud = sample_mesh(path, count, torch.Generator().manual_seed(0))
    assert cloud.colors is not None
    return cloud.points.double().numpy(), cloud.colors.double().numpy()


def assert_quarters(points: np.ndarray, colors: np.ndarray, shift: float = 0.0) -> None:
    """Check that the unit square, or one `shift` along x, shows the picture upright."""
    column = (points[:, 0] - shift > 0.5).astype(int)
    row = (points[:, 1] < 0.5).astype(int)
    np.testing.assert_allclose(colors, QUARTERS[row, column] / 255, atol=1e-6)


def one_color(document: Document, folder: Path) -> np.ndarray:
    """The colour [3] that all of a document's points have."""
    _, colors = seen(document.write(folder), count=50)
    assert np.ptp(colors, axis=0).max() < 1e-6
    return np.asarray(colors[0])


def textured(index: int, **info: Any) -> dict[str, Any]:
    return {"pbrMetallicRoughness": {"baseColorTexture": {"index": index, **info}}}


@pytest.mark.parametrize(
    ("kind", "pad"), [("float32", 0), ("float32", 4), ("int8", 1), ("int16", 2), ("uint8", 1), ("uint16", 2)]
)
def test_positions_and_places_of_every_type_that_quantization_allows(
    tmp_path: Path, kind: str, pad: int
) -> None:
    top = 1 if kind == "float32" else np.iinfo(kind).max
    document = Document(
        extensionsUsed=["KHR_mesh_quantization"], extensionsRequired=["KHR_mesh_quantization"]
    )
    normalized = {"normalized": True} if top > 1 else {}
    primitive = document.square(
        textured(document.picture()),
        POSITION=document.accessor((SQUARE * top).astype(kind), pad=pad, **normalized),
        TEXCOORD_0=document.accessor(
            (PLACES * top).astype(kind), pad=(-2 * np.dtype(kind).itemsize) % 4, **normalized
        ),
    )
    points, colors = seen(
        document.show(primitive, nodes=[{"mesh": 0, "translation": [3, 0, 0]}]).write(tmp_path)
    )
    np.testing.assert_allclose(points.min(axis=0), [3, 0, 0], atol=0.05)
    np.testing.assert_allclose(points.max(axis=0), [4, 1, 0], atol=0.05)
    assert_quarters(points, colors, shift=3.0)


def test_whole_positions_that_are_not_normalized_are_scaled_by_their_node(tmp_path: Path) -> None:
    document = Document()
    primitive = document.square(POSITION=document.accessor((SQUARE * 1000).astype(np.int16), pad=2))
    nodes = [{"children": [1, 2]}] + [
        {"mesh": 0, "scale": [0.001] * 3, "translation": [x, 0, 0]} for x in (-2, 2)
    ]
    cloud = sample_mesh(
        document.show(primitive, nodes=nodes).write(tmp_path), 4000, torch.Generator().manual_seed(0)
    )
    low, high = cloud.points.aminmax(dim=0)
    torch.testing.assert_close(high - low, torch.tensor([5.0, 1, 0]), atol=0.01, rtol=0)


def test_sparse_values_replace_those_of_a_buffer_or_zeros(tmp_path: Path) -> None:
    document = Document()
    whole = document.square()
    rows = document.view(np.array([2, 3], np.uint16).tobytes())
    values = document.view(np.array([[1, 5, 0], [0, 5, 0]], np.float32).tobytes())
    sparse = {
        "count": 2,
        "indices": {"bufferView": rows, "componentType": 5123},
        "values": {"bufferView": values},
    }
    base = document.json["accessors"][whole["attributes"]["POSITION"]]
    document.json["accessors"] += [
        base | {"sparse": sparse},
        {k: base[k] for k in base if k != "bufferView"} | {"sparse": sparse},
    ]
    for number, corners in ((-2, [[0, 0], [1, 5]]), (-1, [[0, 0], [1, 5]])):
        attributes = {"POSITION": len(document.json["accessors"]) + number}
        path = document.show({"attributes": attributes, "indices": whole["indices"]}).write(tmp_path)
        points = sample_mesh(path, 4000, torch.Generator().manual_seed(0)).points.numpy()
        np.testing.assert_allclose([points.min(axis=0)[:2], points.max(axis=0)[:2]], corners, atol=0.2)


def test_a_textures_transform_is_the_specifications(tmp_path: Path) -> None:
    # The example of KHR_texture_transform: the lower left quarter of the picture, turned clockwise by 90°.
    document = Document(extensionsUsed=["KHR_texture_transform"])
    pixels = np.random.default_rng(0).integers(256, size=(4, 4, 3), dtype=np.uint8)
    transform = {"offset": [0, 1], "rotation": np.pi / 2, "scale": [0.5, 0.5]}
    info = {"extensions": {"KHR_texture_transform": transform}}
    path = document.show(document.square(textured(document.picture(pixels), **info))).write(tmp_path)
    points, colors = seen(path)
    shown = np.rot90(pixels[2:, :2], -1)
    row, column = (points[:, 1] < 0.5).astype(int), (points[:, 0] > 0.5).astype(int)
    np.testing.assert_allclose(colors, shown[row, column] / 255, atol=1e-6)
    # Scale comes first, then the turn, then the offset.
    uv = np.array([[0.3, 0.8]])
    one = {"scale": [2.0, 3.0], "offset": [0.1, 0.2]}
    np.testing.assert_allclose(transformed(uv, one), [[0.7, 2.6]])
    np.testing.assert_allclose(transformed(uv, one | {"rotation": np.pi / 2}), [[2.5, -0.4]])


@pytest.mark.parametrize("by_extension", [False, True])
def test_a_texture_has_the_set_of_places_that_it_names(tmp_path: Path, by_extension: bool) -> None:
    document = Document()
    second = document.accessor((PLACES * 65535).astype(np.uint16), normalized=True)
    first = document.accessor(np.zeros((4, 2), np.float32))
    info = (
        {"texCoord": 0, "extensions": {"KHR_texture_transform": {"texCoord": 1}}}
        if by_extension
        else {"texCoord": 1}
    )
    material = textured(document.picture(), **info)
    path = document.show(document.square(material, TEXCOORD_0=first, TEXCOORD_1=second)).write(tmp_path)
    assert_quarters(*seen(path))


def test_beyond_a_texture_comes_what_its_sampler_names(tmp_path: Path) -> None:
    document = Document(samplers=[{"wrapS": 33648, "wrapT": 33071}, {}])
    places = document.accessor(2 * PLACES + 1)  # u from 1 to 3; v from 1, above, to 3
    pictures = [document.picture(sampler=0), document.picture(sampler=1)]
    for index in (0, 1):
        path = document.show(document.square(textured(pictures[index]), TEXCOORD_0=places)).write(tmp_path)
        points, colors = seen(path)
        cell = (points[:, 0] * 4).astype(int)  # u in halves, from 1 on
        if index == 0:  # mirrored: green, red, red, green; clamped: the lowest row
            expected = QUARTERS[1, np.array([1, 0, 0, 1])[cell]]
        else:
            expected = QUARTERS[((1 - points[:, 1]) * 4).astype(int) % 2, cell % 2]
        np.testing.assert_allclose(colors, expected / 255, atol=1e-6)


def test_materials_are_what_a_person_sees(tmp_path: Path) -> None:
    def shown(material: dict[str, Any], *, painted: np.ndarray | None = None) -> np.ndarray:
        document = Document()
        assert document.picture(np.tile(np.array([0, 255, 0], np.uint8), (2, 2, 1))) == 0
        normalized = {"normalized": True} if painted is not None and painted.dtype != np.float32 else {}
        attributes = {} if painted is None else {"COLOR_0": document.accessor(painted, **normalized)}
        return one_color(document.show(document.square(material, **attributes)), tmp_path)

    def specular(**keys: Any) -> dict[str, Any]:
        metallic = {"baseColorFactor": [1, 1, 1, 1]}  # what readers without the extension are to show
        return {"pbrMetallicRoughness": metallic, "extensions": {"KHR_materials_pbrSpecularGlossiness": keys}}

    def base(*factor: float) -> dict[str, Any]:
        return {"pbrMetallicRoughness": {"baseColorFactor": [*factor, 1.0]}}

    green, linear = {"index": 0}, np.array([0.2, 0.4, 0.8])
    light = {"emissiveFactor": [1, 1, 1], "emissiveTexture": green}
    strong = {
        "emissiveFactor": [0.5, 0, 0],
        "extensions": {"KHR_materials_emissive_strength": {"emissiveStrength": 8}},
    }
    unlit = {"extensions": {"KHR_materials_unlit": {}}}
    for material, expected in [
        (specular(diffuseTexture=green), GREEN),
        (specular(diffuseFactor=[*linear, 1]), to_srgb(linear)),
        (specular(diffuseFactor=[0, 0, 0, 1], specularFactor=linear.tolist()), to_srgb(linear)),
        (specular(diffuseFactor=[0, 0, 0, 1]), np.zeros(3)),
        (light, GREEN),
        (base(0, 0, 0) | light, GREEN),
        (base(0, 0, 1) | light, GREEN + BLUE),
        (base(0, 0, 0) | {"emissiveFactor": linear.tolist()}, to_srgb(linear)),
        (base(0, 0, 0) | strong, RED),
        (base(*linear) | unlit, to_srgb(linear)),
        ({}, np.ones(3)),
    ]:
        np.testing.assert_allclose(shown(material), expected, atol=1e-6, err_msg=str(material))
    # Colours of vertices are linear, of any type, and count beside the material's.
    shares = np.tile(np.array([51, 102, 204, 255]), (4, 1))
    for painted in (
        shares.astype(np.uint8),
        (shares * 257).astype(np.uint16),
        (shares / 255).astype(np.float32)[:, :3],
    ):
        color = shown(base(0.5, 1, 1), painted=painted)
        np.testing.assert_allclose(color, to_srgb(linear * [0.5, 1, 1]), atol=1e-6)


def test_pictures_of_other_formats_and_beside_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    document = Document(extensionsUsed=["EXT_texture_webp"], extensionsRequired=["EXT_texture_webp"])
    document.picture(kind="WEBP")
    document.json["textures"] = [{"extensions": {"EXT_texture_webp": {"source": 0}}}]
    assert_quarters(*seen(document.show(document.square(textured(0))).write(tmp_path)))
    Image.fromarray(QUARTERS).save(tmp_path / "my tex.png")
    document = Document(images=[{"uri": "my%20tex.png"}], textures=[{"source": 0}])
    primitive = document.square(textured(0))
    assert_quarters(*seen(document.show(primitive).write(tmp_path)))
    assert caplog.messages == []
    (tmp_path / "my tex.png").unlink()
    np.testing.assert_allclose(one_color(document, tmp_path), np.ones(3))
    assert "texture 'my tex.png' is not there" in caplog.text
    (tmp_path / "my.gltf").write_text(
        json.dumps(document.json | {"buffers": [{"uri": "my%20.bin", "byteLength": 4}]})
    )
    with pytest.raises(
        ValueError, match=r"my\.gltf' cannot be read: it needs 'my%20\.bin', which is not there\.$"
    ):
        seen(str(tmp_path / "my.gltf"))


def test_strips_and_fans_are_triangles(tmp_path: Path) -> None:
    for mode, order in ((5, [0, 1, 3, 2]), (6, [0, 1, 2, 3])):
        document = Document()
        primitive = document.square() | {
            "mode": mode,
            "indices": document.accessor(np.array(order, np.uint8)),
        }
        path = document.show(primitive).write(tmp_path)
        points = sample_mesh(path, 4000, torch.Generator().manual_seed(0)).points.numpy()
        counts, _, _ = np.histogram2d(points[:, 0], points[:, 1], bins=2, range=[[0, 1], [0, 1]])
        assert counts.min() > 900


def test_bones_and_morphs_are_at_rest(tmp_path: Path) -> None:
    # A joint that turns by 90° around z, beside the inverse of where it was bound; the mesh's node does not count.
    document = Document()
    bound = np.eye(4)
    bound[3, :3] = [-1, 0, 0]  # by columns: moved by -1 along x
    primitive = document.square(
        JOINTS_0=document.accessor(np.zeros((4, 4), np.uint8)),
        WEIGHTS_0=document.accessor(np.tile(np.array([255, 0, 0, 0], np.uint8), (4, 1)), normalized=True),
    )
    primitive["targets"] = [{"POSITION": document.accessor(np.tile(np.float32([0, 0, 4]), (4, 1)))}]
    inverse = document.accessor(bound.reshape(1, 16).astype(np.float32))
    document.json["skins"] = [{"joints": [1], "inverseBindMatrices": inverse}]
    half = np.sqrt(0.5)
    nodes = [
        {"mesh": 0, "skin": 0, "scale": [9, 9, 9]},
        {"rotation": [0, 0, half, half], "translation": [0, 0, 10]},
    ]
    document.show(primitive, nodes=nodes).json["meshes"][0]["weights"] = [0.25]
    points = sample_mesh(document.write(tmp_path), 2000, torch.Generator().manual_seed(0)).points.numpy()
    # x, y in 0..1 less (1, 0), turned: (-y, x).
    np.testing.assert_allclose(points.min(axis=0), [-1, -1, 11], atol=0.05)
    np.testing.assert_allclose(points.max(axis=0), [0, 0, 11], atol=0.05)


def test_copies_of_instancing_and_the_scene_that_is_named(tmp_path: Path) -> None:
    name = "EXT_mesh_gpu_instancing"
    document = Document(extensionsUsed=[name], extensionsRequired=[name])
    moves = document.accessor(np.float32([[0, 0, 0], [0, 4, 0]]))
    sizes = document.accessor(np.float32([[1, 1, 1], [2, 2, 2]]))
    copies = {"extensions": {name: {"attributes": {"TRANSLATION": moves, "SCALE": sizes}}}}
    document.show(document.square(), nodes=[{"mesh": 0, "translation": [90, 0, 0]}, {"mesh": 0} | copies])
    document.json |= {"scenes": [{"nodes": [0]}, {"nodes": [1]}], "scene": 1}
    points = sample_mesh(document.write(tmp_path), 5000, torch.Generator().manual_seed(0)).points.numpy()
    np.testing.assert_allclose(points.max(axis=0), [2, 6, 0], atol=0.05)
    assert abs((points[:, 1] > 2).mean() - 0.8) < 0.01


def test_what_is_not_used_is_reported_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    document = Document(extensionsUsed=["KHR_materials_clearcoat", "KHR_lights_punctual"])
    picture = document.picture()
    material = textured(picture) | {"normalTexture": {"index": picture}, "alphaMode": "MASK"}
    lines = {"attributes": {"POSITION": document.accessor(SQUARE)}, "mode": 1}
    document.show(
        document.square(material),
        lines,
        nodes=[
            {"mesh": 0},
            {"camera": 0},
            {"camera": 0, "extensions": {"KHR_lights_punctual": {"light": 0}}},
        ],
    )
    document.json |= {"animations": [{}], "scenes": [{"nodes": [0, 1, 2]}, {"nodes": []}]}
    path = document.write(tmp_path)
    assert_quarters(*seen(path))
    unused = "normalTextures, transparency, 2 cameras, 1 light, 1 animation, 1 other scene, the effect of KHR_materials_clearcoat"
    lines_left = f"{path!r}: 4 points and ends of lines beside the faces are not used."
    assert caplog.messages == [f"{path!r}: not used: {unused}.", lines_left]


def test_what_cannot_be_read_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def refusal(document: Document) -> str:
        with pytest.raises(ValueError, match=r"^'.*\.$") as caught:
            seen(
                document.show(document.square(textured(0)), nodes=document.json.get("nodes")).write(tmp_path)
            )
        return str(caught.value)

    basisu = {"extensions": {"KHR_texture_basisu": {"source": 0}}}
    for used in ("extensionsUsed", "extensionsRequired"):
        for name in ("KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_meshopt_compression"):
            document = Document(**{used: [name]})
            if used == "extensionsUsed" and "draco" in name:  # as its writers do: accessors without data
                document.json["accessors"].append({"componentType": 5126, "count": 4, "type": "VEC3"})
            elif used == "extensionsUsed":  # and a buffer that has no bytes
                document.buffers.append({"byteLength": 8, "extensions": {name: {"fallback": True}}})
                view = {"buffer": 1, "byteLength": 8, "extensions": {name: {}}}
                document.json["bufferViews"].append(view)
                document.json |= {"images": [{"bufferView": 0}], "textures": [{"source": 0}]}
            assert f"is compressed with {name}, but it must be plain: export it without" in refusal(document)
        document = Document(**{used: ["KHR_texture_basisu"]}, textures=[basisu])
        document.json["images"] = [{"bufferView": document.view(b"\xabKTX 20\xbb"), "mimeType": "image/ktx2"}]
        assert "textures in KTX2 (KHR_texture_basisu), but PNG" in refusal(document)
    # A picture of the same in PNG is used.
    document.picture()
    document.json["textures"] = [{"source": 1} | basisu]
    assert_quarters(*seen(document.show(document.square(textured(0))).write(tmp_path)))
    assert "requires EXT_unheard_of, which is not read" in refusal(
        Document(extensionsRequired=["EXT_unheard_of"])
    )
    assert "its nodes[1] is its own ancestor" in refusal(Document(nodes=[{}, {"children": [1]}]))
    assert "its nodes[1] is a child of two nodes" in refusal(Document(nodes=[{"children": [1, 1]}, {}]))
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read as glTF 2.0: it is empty."),
        (b"glTF\2\0", "cannot be read as glTF 2.0: it has 6 bytes, but its header takes 20."),
        (b"PK\3\4" + bytes(50), "cannot be read as glTF 2.0: it does not start as a glTF file does"),
        (glb({"asset": {"version": "1.0"}}), "is glTF 1.0, but only glTF 2.0 is read: convert it first."),
        (glb({}), "cannot be read as glTF 2.0: it lacks 'asset'."),
    ],
)
def test_what_is_no_gltf_gets_a_sentence(tmp_path: Path, content: bytes, words: str) -> None:
    for name in ("x.glb", "x.gltf"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=r"\.$") as caught:
            seen(str(tmp_path / name))
        assert words in str(caught.value)


def test_a_file_is_what_it_holds_and_not_what_its_name_ends_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    document = Document()
    document.show(document.square(textured(document.picture())))
    assert_quarters(*seen(document.write(tmp_path, "binary.gltf")))
    (tmp_path / "x.bin").write_bytes(document.binary)
    text = json.dumps(document.json | {"buffers": [{"uri": "x.bin", "byteLength": len(document.binary)}]})
    (tmp_path / "text.glb").write_text(text, encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert_quarters(*seen(str(tmp_path / "text.glb")))
    assert caplog.messages == []
