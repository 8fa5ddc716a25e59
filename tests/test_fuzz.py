"""Files of any content are read or refused in one sentence, soon and without taking the memory."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import struct
import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch
from trimesh.visual.material import SimpleMaterial

import config as configuration
from config import Config, ConfigError
from exporting.formats import write_splats
from scene.asset import Asset, load_asset
from scene.gaussian_model import GaussianModel
from scene.mesh import sample_mesh
from scene.optimizer import GaussianOptimizer
from scene.ply import read_points
from scene.snapshot import restore, snapshot
from tests.exporting.assets import random_gaussians
from tests.fuzz import Watched, mangled
from tests.scene.meshes import checkerboard, exported, painted, square
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
