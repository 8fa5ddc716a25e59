"""Files of any content are read or refused in one sentence, soon and without taking the memory."""

from __future__ import annotations

import copy
import gzip
import hashlib
import io
import json
import random
import struct
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from trimesh.visual.material import SimpleMaterial

import config as configuration
from config import Config, ConfigError
from exporting.formats import write_splats
from guidance.prior import PriorError, StableDiffusionPrior
from guidance.prior.adaptations import Adaptations, adapt
from scene.asset import Asset, load_asset
from scene.gaussian_model import GaussianModel
from scene.meshes.sample import sample_mesh
from scene.optimizer import GaussianOptimizer
from scene.points_ply import read_points
from scene.snapshot import restore, snapshot
from tests.exporting.assets import random_gaussians
from tests.fuzz import Watched, mangled
from tests.lora import lora
from tests.scene.gltf_files import everything
from tests.scene.meshes import checkerboard, exported, painted, square
from tests.tiny_diffusers import write_tiny_folder
from utils import checkpoints
from utils.checkpoints import Checkpoint
from utils.device import HOST


def sizes(slow: int, thorough: int) -> pytest.MarkDecorator:
    """Parametrise `count`: some files in the slow tests, all in the thorough ones."""
    each = [pytest.param(slow, marks=pytest.mark.slow), pytest.param(thorough, marks=pytest.mark.thorough)]
    return pytest.mark.parametrize("count", each)


PRESETS = sorted((Path(__file__).parents[1] / "config").glob("*.yaml"))
YAML_WORDS = [
    *(
        b"!!python/object/apply:os.system ['true']",
        b"&a [*a]",
        b"*a",
        b"<<: *b",
        b"{a: {a: {a: ",
        b"[" * 3000,
    ),
    *(
        b"1e400",
        b"-.inf",
        b".nan",
        b"0x" + b"f" * 50,
        b"9" * 400,
        b"1" + b"_0" * 100,
        b"2001-13-45",
        b"null",
        b"~",
    ),
    *(
        b"'",
        b'"',
        b"%",
        b"\t",
        b"\x00",
        b"\xff\xfe",
        b"\xe2\x80\xa8",
        b"? ",
        b"- ",
        b": ",
        b"|\n",
        b"---\n",
        b"...\n",
    ),
    *(
        b"iterations: 10",
        b"GuidanceParams:\n",
        b"  text: ''\n",
        b"true",
        b"[1, 2]",
        b"[[1], 2]",
        b"{}",
        b"\n\n",
    ),
]
PLY_WORDS = [
    *(
        b"element vertex 99999999999\n",
        b"element vertex -1\n",
        b"element face 4000000000\n",
        b"element vertex 0\n",
    ),
    *(
        b"property list uchar int vertex_indices\n",
        b"property double x\n",
        b"property float x\n",
        b"end_header\n",
    ),
    *(
        b"format ascii 1.0\n",
        b"format binary_big_endian 1.0\n",
        b"nan",
        b"inf",
        b"1e999",
        b"\n",
        b"\r\n",
        b"\xff" * 64,
    ),
]
MESH_WORDS = [
    *(b"v nan 1e999 0\n", b"f 1 2 99999999999\n", b"f -9 1/1/1 //\n", b"f" + b" 1" * 9000 + b"\n"),
    *(b"mtllib /dev/zero\n", b"mtllib ../../x\n", b"usemtl \xff\n", b"vt 1e30 nan\n", b"facet normal 0 0\n"),
    *(b'"count": 29999999', b'"count": 99999999999', b'"byteStride": 1', b'"nodes": [0, 0, 0]', b'"mesh": 0'),
    *(b'"children": [0]', b'"uri": "/dev/zero"', b'"bufferView": 0', b'"matrix": [0]', b'"byteOffset": -1'),
    *(b"element vertex 4000000000\n", b"property list uint int vertex_indices\n", b"\xff" * 64, b"\x00" * 64),
]
RICH_OBJ = (
    b"mtllib x.mtl\nv 0 0 0 1 0 0\nv 1 0 0 1 0 0\nv 1 1 0 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\n#MRGB ff00ff00\n"
    b"usemtl a\nf 1/1 2/2 3/3\nusemtl b\nf -4/1 -2/3 -1\nf 1//1 2//2 3//3 4//4\nl 1 2\n"
)
RICH_MTL = (
    b"newmtl a\nKd 0.5 0.5 1\nmap_Kd -s 1 2 -o .5 0 -clamp on -mm 0 1 t.png\nd 0.5\nmap_Bump n.png\n"
    b"newmtl b\nKd 0 0 0\nKe 1 0 0\nTr 0.1\n"
)
MTL_WORDS = [
    *(
        b"newmtl a\n",
        b"map_Kd ",
        b"-s ",
        b"-o 1e999 nan",
        b"-bm ",
        b"-clamp on ",
        b"/dev/zero",
        b"..\\..\\x",
        b"\x00",
    ),
    *(b"Kd 1e999 nan -1\n", b"Kd spectral x\n", b"Ke 9\n", b"\\\n", b"\xff\xfe", b'"', b"\t", b"~" * 5000),
]
RICH_PLY = (
    b"ply\nformat ascii 1.0\ncomment TextureFile t.png\ncomment TextureFile u.png\nelement vertex 4\n"
    b"property float x\nproperty float y\nproperty float z\nproperty float r\nproperty float g\nproperty float b\n"
    b"property float s\nproperty float t\nelement face 2\nproperty list uchar int vertex_indices\n"
    b"property list uchar float texcoord\nproperty int texnumber\nproperty uchar red\nend_header\n"
    b"0 0 0 1 0 0 0 0\n1 0 0 200 0 0 1 0\n1 1 0 1 0 0 1 1\n0 1 0 1 0 0 0 1\n"
    b"4 0 1 2 3 8 0 0 1 0 1 1 0 1 0 9\n3 0 1 2 0 1 9\n"
)
ODD: list[Any] = [
    *(
        None,
        True,
        -1,
        0,
        1,
        2,
        3,
        4,
        5,
        7,
        10**9,
        10**30,
        0.5,
        1e300,
        float("nan"),
        float("inf"),
        "",
        "x",
        "VEC4",
    ),
    *(
        [],
        {},
        [0],
        [1, 2],
        [1e300] * 3,
        [0] * 4,
        [[[]]],
        {"index": 0},
        "../../x",
        "data:;base64,AA==",
        5121,
        5126,
    ),
]
"""Values that some place in a document does not expect."""


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Walk through all places in a JSON value: the dict or list, and the key or number in it."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from places(inner)


SPLAT_WORDS = [
    *(b"NGSP", b"PK\x03\x04", b"RIFF", b"glTF", b"\xff" * 4, b"\xff" * 64, b"\x00" * 16, b"null", b"-1"),
    *(b'"count": 99999999', b'"count": 9999999', b'"version": 1', b'"mins": [1e999]', b'"shape": [9, 45]'),
    *(b'"bands": 3', b'"files": ["../x"]', b'"byteStride": 1', b'"byteLength": -4', b'"nodes": [0]'),
    *(b'"componentType": 5120', b'"matrix": [1]', b'"scale": [1, 0, -1]', b"element chunk 4000000000\n"),
    *(b"element vertex 99999999999\n", b"property list uchar int a\n", b"property double min_x\n"),
]
JSON_WORDS = [
    *(
        b"{",
        b"}",
        b"[" * 3000,
        b"null",
        b"1e999",
        b"-1",
        b"99999999999999999999",
        b'"step": 3',
        b'"sha256": ""',
        b"\xff",
    ),
    *(b'"facts": {}', b'"layout": 2', b'"bytes": 0', b"NaN", b'"' * 3, b","),
]

WEIGHT_WORDS = [
    *(
        b'"F16"',
        b'"F8_E4M3"',
        b'"BOOL"',
        b'"I64"',
        b'"C64"',
        b"[0,0]",
        b"[2,2]",
        b"[12]",
        b"[]",
        b"[99999999999,3]",
    ),
    *(b".lora_down.weight", b".lora_up.weight", b".lora_mid.weight", b".alpha", b".dora_scale", b".diff_b"),
    *(b".hada_w1_a", b".lokr_w1", b".lokr_w2_b", b".a1.weight", b".on_input", b".oft_blocks", b"lora_te2_"),
    *(b"base_model.model.", b"unet.", b"_7_", b"\\n", b"clip_g", b"emb_params", b"string_to_param", b"<toy>"),
    *(b"\xff" * 4, b"\x00" * 8, b"\x00\x00\xc0\x7f", b"\x80\x02c", b"q\x01", b"PK\x03\x04", *JSON_WORDS),
]


def gaussians(count: int = 20) -> GaussianModel:
    rng = torch.Generator().manual_seed(0)
    return GaussianModel.from_points(
        torch.rand(count, 3, generator=rng), torch.rand(count, 3, generator=rng), sh_degree=1
    )


def one_sentence(said: str | None) -> bool:
    return said is None or (0 < len(said) < 1000 and "\n" not in said.strip())


@sizes(500, 5000)
def test_configurations(tmp_path: Path, count: int) -> None:
    chance, watched, path, refused = random.Random(0), Watched(), tmp_path / "x.yaml", 0
    contents = [preset.read_bytes() for preset in PRESETS]
    for number in range(count):
        path.write_bytes(mangled(chance.choice(contents), YAML_WORDS, chance))
        said = watched(lambda: configuration.load(["--opt", str(path)]), (ConfigError,))
        assert one_sentence(said), (number, said)
        refused += said is not None
    watched.check()
    assert count / 5 < refused < count


@sizes(400, 2000)
def test_ply_files(tmp_path: Path, count: int) -> None:
    chance, watched, path, refused = random.Random(0), Watched(), tmp_path / "x.ply", 0
    gaussians().save_ply(path)
    contents = [path.read_bytes()]
    header = (
        b"ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    )
    header += b"property uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n"
    contents.append(header + b"0 0 0 1 2 3\n1 0 0 1 2 3\n0 1 0 1 2 3\n")
    contents.append(header.replace(b"uchar", b"float") + b"0 0 0 1 200 3\n1 0 0 .1 2 3\n0 1 0 1 2 -3\n")
    packed = header.partition(b"property uchar")[0] + b"property float rgb\nend_header\n"
    contents.append(packed + b"0 0 0 2.3e-38\n1 0 0 16711680\n0 1 0 -1e38\n")
    for number in range(count):
        path.write_bytes(mangled(chance.choice(contents), PLY_WORDS, chance))
        for read in (GaussianModel.load_ply, read_points):
            said = watched(partial(read, path), (ValueError, OSError))
            assert one_sentence(said), (number, said)
            refused += said is not None
    watched.check()
    assert count / 2 < refused < 2 * count


def twisted(content: bytes, chance: random.Random) -> bytes:
    """Return JSON with a value somewhere in it replaced."""
    document = json.loads(content)
    at, key = [document], 0
    while isinstance(at[key], (dict, list)) and at[key] and chance.random() < 0.8:
        at = at[key]
        key = chance.choice([*at] if isinstance(at, dict) else range(len(at)))
    at[key] = chance.choice(
        (None, -1, 0, 3, 10**30, 1e30, 2.5, True, "x", "../x", [], [0], {}, {"files": [1]})
    )
    return json.dumps(document).encode()


def inside(suffix: str, content: bytes, chance: random.Random) -> bytes:
    """Return a sound container with damaged content, as one who means harm would write it."""
    if suffix == ".spz":
        return gzip.compress(mangled(gzip.decompress(content), SPLAT_WORDS, chance), 1)
    if suffix == ".sog":
        file, bundle = io.BytesIO(), zipfile.ZipFile(io.BytesIO(content))
        names = bundle.namelist()
        damaged = chance.choice(["meta.json", chance.choice(names)])
        with zipfile.ZipFile(file, "w") as other:
            for name in names:
                part = bundle.read(name)
                if name == damaged:
                    part = (
                        twisted(part, chance) if name == "meta.json" else mangled(part, SPLAT_WORDS, chance)
                    )
                other.writestr(name, part)
        return file.getvalue()
    if suffix == ".splat.glb":
        length = int.from_bytes(content[12:16], "little")
        document = twisted(content[20 : 20 + length], chance)
        return content[:12] + struct.pack("<I", len(document)) + b"JSON" + document + content[20 + length :]
    return mangled(content, SPLAT_WORDS, chance)


@pytest.mark.parametrize("suffix", [".compressed.ply", ".splat", ".spz", ".sog", ".splat.glb"])
@sizes(100, 2000)
def test_gaussians_of_other_programs(tmp_path: Path, count: int, suffix: str) -> None:
    chance, watched, path, refused = random.Random(0), Watched(), tmp_path / f"x{suffix}", 0
    contents = []
    for degree in (0, 3):
        write_splats(path, Asset(random_gaussians(40, degree), "z,x"))
        contents.append(path.read_bytes())
    for number in range(count):
        damage = inside if number % 2 else lambda _, content, chance: mangled(content, SPLAT_WORDS, chance)
        path.write_bytes(damage(suffix, chance.choice(contents), chance))
        said = watched(partial(load_asset, path), (ValueError, OSError))
        assert one_sentence(said), (number, said)
        assert said is None or str(path) in said, (number, said)
        refused += said is not None
    watched.check()
    assert count / 3 < refused < count


@sizes(200, 2000)
def test_meshes(tmp_path: Path, count: int) -> None:
    chance, watched, refused = random.Random(0), Watched(), 0
    image, _ = checkerboard(cells=2, pixels=2)
    mesh = painted(SimpleMaterial(image=image))
    contents = {}
    for suffix in (".obj", ".glb", ".gltf", ".stl", ".ply"):
        made = square(vertex_colors=[(255, 0, 0)] * 4) if suffix == ".ply" else mesh
        contents[suffix] = Path(exported(made, tmp_path / f"sound{suffix}")).read_bytes()
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=np.float32)
    np.savez(
        tmp_path / "sound.npz",
        vertices=corners,
        faces=np.array([[0, 1, 2]]),
        colors=np.eye(3, dtype=np.uint8),
    )
    contents[".npz"] = (tmp_path / "sound.npz").read_bytes()
    contents[".rich.glb"] = everything().encode()
    contents[".rich.ply"] = RICH_PLY
    contents[".rich.obj"] = RICH_OBJ
    (tmp_path / "x.mtl").write_bytes(RICH_MTL)
    image.save(tmp_path / "t.png")
    for number in range(count):
        suffix = chance.choice(sorted(contents))
        path = tmp_path / f"x{suffix}"
        path.write_bytes(mangled(contents[suffix], MESH_WORDS, chance))
        rng = torch.Generator().manual_seed(0)
        said = watched(partial(sample_mesh, str(path), 50, rng), (ValueError, OSError))
        assert one_sentence(said), (number, said)
        refused += said is not None
    watched.check()
    assert count / 4 < refused < count


@sizes(200, 2000)
def test_documents_and_materials(tmp_path: Path, count: int) -> None:
    # Damage that JSON and the lines of .mtl survive, so that it reaches what reads them.
    chance, watched, refused = random.Random(0), Watched(), 0
    checkerboard(cells=2, pixels=2)[0].save(tmp_path / "t.png")
    (tmp_path / "x.obj").write_bytes(RICH_OBJ)
    for number in range(count):
        if number % 4:
            path, document = tmp_path / "x.glb", everything()
            for _ in range(chance.randint(1, 3)):
                container, key = chance.choice(list(places(document.json)))
                if chance.random() < 0.2:
                    del container[key]
                else:
                    container[key] = chance.choice(ODD)
            path.write_bytes(document.encode())
        else:
            path = tmp_path / "x.obj"
            (tmp_path / "x.mtl").write_bytes(mangled(RICH_MTL, MTL_WORDS, chance))
        rng = torch.Generator().manual_seed(0)
        said = watched(partial(sample_mesh, str(path), 50, rng), (ValueError, OSError))
        assert one_sentence(said), (number, said)
        refused += said is not None
    watched.check()
    assert count / 3 < refused < count


@sizes(200, 1000)
def test_checkpoints(tmp_path: Path, count: int) -> None:
    params = Config().optimization
    optimizer = GaussianOptimizer(gaussians(), params, 1.0)
    for parameter in optimizer.model.raw().values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step(1)
    tensors = snapshot(optimizer)
    checkpoints.save(tmp_path, Checkpoint(3, tensors, {"counts": {"step": 3}}))
    stored, described = tmp_path / "iteration_3.safetensors", tmp_path / "iteration_3.json"
    sound, facts = stored.read_bytes(), described.read_bytes()
    words = [
        b"\xff" * 8,
        b"\x00" * 8,
        b'"F64"',
        b'"dtype"',
        b"[0,0]",
        b"[99999999999,3]",
        b'"I8"',
        *JSON_WORDS,
    ]
    chance, watched, refused = random.Random(0), Watched(), 0

    def read() -> None:
        found = checkpoints.load(tmp_path, 3)
        restore(found.tensors, params, 1.0, HOST)

    for number in range(count):
        stored.write_bytes(sound)
        described.write_bytes(facts)
        # Half of them with checksums that are right, as one who means harm would write them.
        body = json.loads(facts)["checkpoint"]
        if number % 4 == 0:
            described.write_bytes(mangled(facts, JSON_WORDS, chance))
        elif number % 4 == 1:
            for key in chance.sample(sorted(body), 2):
                body[key] = chance.choice((None, -1, 10**30, "x", [], {}, body.pop(key)))
            described.write_text(json.dumps({"sha256": checkpoints._digest_of(body), "checkpoint": body}))
        else:
            content = mangled(sound, words, chance)
            stored.write_bytes(content)
            body |= {"bytes": len(content)}
            body |= {"sha256": hashlib.sha256(content).hexdigest()} if number % 4 == 2 else {}
            described.write_text(json.dumps({"sha256": checkpoints._digest_of(body), "checkpoint": body}))
        said = watched(read, (ValueError, OSError))
        assert one_sentence(said), (number, said)
        refused += said is not None
    watched.check()
    assert count / 2 < refused <= count


@sizes(200, 2000)
def test_loras_and_words(tmp_path: Path, count: int) -> None:
    prior = StableDiffusionPrior.load(str(write_tiny_folder(tmp_path / "model")), HOST)
    low = lora(prior)
    names = [name.removesuffix(".lora_A.weight") for name in low if "attn2" in name and "lora_A" in name][:4]
    sizes_of = {name: low[f"{name}.lora_B.weight"].shape[0] for name in names}
    width_of = {name: low[f"{name}.lora_A.weight"].shape[1] for name in names}
    kinds: dict[str, dict[str, Tensor]] = {
        "plain": {key: values for key, values in low.items() if key.split(".lora_")[0] in names},
        "adapter_model": {
            key.replace("unet.", "base_model.model."): values
            for key, values in low.items()
            if key.split(".lora_")[0] in names
        },
        "words": {"<toy>": torch.ones(2, 12), "<style>": torch.ones(12)},
    }
    kinds["dora"] = kinds["plain"] | {f"{name}.dora_scale": torch.ones(sizes_of[name], 1) for name in names}
    kinds["loha"] = {
        f"{name}.hada_w{n}_{half}": torch.ones(*((sizes_of[name], 2) if half == "a" else (2, width_of[name])))
        for name in names
        for n in (1, 2)
        for half in "ab"
    }
    kinds["lokr"] = {
        f"{name}.{part}": torch.ones(
            *((2, 2) if part == "lokr_w1" else (sizes_of[name] // 2, width_of[name] // 2))
        )
        for name in names
        for part in ("lokr_w1", "lokr_w2")
    }
    contents = {}
    for kind, tensors in kinds.items():
        save_file(tensors, tmp_path / "x.safetensors")
        torch.save(tensors, tmp_path / "x.bin")
        for suffix in (".safetensors", ".bin"):
            contents[kind, suffix] = (tmp_path / f"x{suffix}").read_bytes()
    settings = tmp_path / "adapter_config.json"
    sound = b'{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "alpha_pattern": {"to_k": 1}}'
    chance, watched, refused = random.Random(0), Watched(), 0

    def read(kind: str, path: Path) -> None:
        Adaptations(**{"words" if kind == "words" else "lora": str(path)}).check()
        unet, encoder, tokenizer = copy.deepcopy((prior.unet, prior.text_encoder, prior.tokenizer))
        given = Adaptations(**{"words" if kind == "words" else "lora": str(path)}, lora_partial=True)
        adapt(unet, encoder, tokenizer, given)("a <toy>")

    for number in range(count):
        kind, suffix = chance.choice(sorted(contents))
        path = tmp_path / f"{'adapter_model' if kind == 'adapter_model' else 'x'}{suffix}"
        content = contents[kind, suffix]
        settings.write_bytes(mangled(sound, JSON_WORDS, chance) if number % 2 else sound)
        path.write_bytes(
            content if kind == "adapter_model" and number % 2 else mangled(content, WEIGHT_WORDS, chance)
        )
        said = watched(partial(read, kind, path), (PriorError,))
        assert one_sentence(said), (number, said)
        refused += said is not None
    watched.check()
    assert count / 4 < refused < count
