from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scene.meshes.mtl import texture_of
from scene.meshes.sample import sample_mesh

PIXELS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], dtype=np.uint8)
SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
FACE = "f 1/1 2/2 3/3 4/4\n"


def seen(
    path: Path, text: str, mtl: str | None = None, count: int = 400
) -> tuple[np.ndarray, np.ndarray | None]:
    """Points [N, 3] and colours [N, 3] of an OBJ file, whose x.mtl holds `mtl`."""
    path.write_text(text, encoding="utf-8")
    if mtl is not None:
        (path.parent / "x.mtl").write_text(mtl, encoding="utf-8")
    cloud = sample_mesh(str(path), count, torch.Generator().manual_seed(0))
    return cloud.points.numpy(), None if cloud.colors is None else cloud.colors.numpy()


def assert_color(colors: np.ndarray | None, color: object) -> None:
    assert colors is not None
    np.testing.assert_allclose(
        colors, np.broadcast_to(np.asarray(color, dtype=np.float64), colors.shape), atol=1e-6
    )


@pytest.mark.parametrize(
    ("rest", "options", "name"),
    [
        ("t.png", {}, "t.png"),
        ("my red tex.png", {}, "my red tex.png"),
        ("-s 1 1 1 sub/t.png", {"-s": ["1", "1", "1"]}, "sub/t.png"),
        ("-s 2 -o .5 -0.25 a b.png", {"-s": ["2"], "-o": [".5", "-0.25"]}, "a b.png"),
        (
            "-blendu on -mm 0 1 -bm 0.5 -clamp on -t 0 0 0 -texres 512 x.png",
            {
                "-blendu": ["on"],
                "-mm": ["0", "1"],
                "-bm": ["0.5"],
                "-clamp": ["on"],
                "-t": ["0"] * 3,
                "-texres": ["512"],
            },
            "x.png",
        ),
        (
            '-imfchan l -type sphere "quoted name.png"',
            {"-imfchan": ["l"], "-type": ["sphere"]},
            "quoted name.png",
        ),
        ("-s 1 1 1 2.png", {"-s": ["1", "1", "1"]}, "2.png"),
        ("-odd.png", {}, "-odd.png"),
    ],
)
def test_options_of_a_texture_are_not_its_name(rest: str, options: dict[str, list[str]], name: str) -> None:
    assert texture_of(rest) == (options, name)


@pytest.mark.parametrize(
    "name",
    [
        "sub\\t.png",
        "sub/t.png",
        "./sub/t.png",
        "SUB\\T.PNG",
        "-s 1 1 1 sub\\t.png",
        "my tex.png",
        "-bm 1 my tex.png",
    ],
)
def test_textures_are_found_as_programs_name_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    (tmp_path / "sub").mkdir()
    for file in ("sub/t.png", "my tex.png"):
        Image.fromarray(PIXELS).save(tmp_path / file)
    points, colors = seen(
        tmp_path / "x.obj", f"mtllib x.mtl\n{SQUARE}usemtl a\n{FACE}", f"newmtl a\nmap_Kd {name}\n"
    )
    row, column = (points[:, 1] < 0.5).astype(int), (points[:, 0] > 0.5).astype(int)
    assert_color(colors, PIXELS[row, column] / 255)
    assert [m for m in caplog.messages if "-bm" not in m] == []


def test_a_texture_from_another_computer_is_taken_from_beside_the_mesh(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.fromarray(PIXELS[:1, :1]).save(tmp_path / "t.png")
    name = "C:\\Users\\me\\t.png"
    _, colors = seen(
        tmp_path / "x.obj", f"mtllib x.mtl\n{SQUARE}usemtl a\n{FACE}", f"newmtl a\nmap_Kd {name}\n"
    )
    assert_color(colors, [1, 0, 0])
    assert caplog.messages == [
        f"{str(tmp_path / 'x.obj')!r} names {name!r}, which is not there: 't.png' beside it is used."
    ]


def test_scale_and_offset_of_a_texture_and_its_clamped_edge(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "t.png")
    text = f"mtllib x.mtl\n{SQUARE}usemtl a\n{FACE}"
    for options, place in (
        ("-s 0.5 0.5 -o 0.5 0", (1, 1)),
        ("-o 1 5 -clamp on", (0, 1)),
        ("-s .1 -o 7.2 7.7", None),
    ):
        points, colors = seen(tmp_path / "x.obj", text, f"newmtl a\nmap_Kd {options} t.png\n")
        if place is None:  # only u is scaled by one number; it is repeated from 7.2 to 7.3, v from 7.7 to 8.7
            assert_color(colors, PIXELS[(points[:, 1] > 0.3).astype(int) * (points[:, 1] < 0.8), 0] / 255)
        else:
            assert_color(colors, PIXELS[place] / 255)


def test_what_is_missing_is_named_and_the_plain_colour_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, mtl = tmp_path / "x.obj", "newmtl a\nKd 0.8 0.4 0.1\nmap_Kd gone.png\n"
    _, colors = seen(path, f"mtllib x.mtl\n{SQUARE}usemtl a\n{FACE}", mtl)
    assert_color(colors, [0.8, 0.4, 0.1])
    assert caplog.messages == [
        f"{str(path)!r}: texture 'gone.png' is not there, so the plain colour is used instead."
    ]
    caplog.clear()
    _, colors = seen(path, f"mtllib other.mtl\n{SQUARE}usemtl a\n{FACE}", mtl)
    assert colors is None
    what = (
        "material file 'other.mtl', which is not there, material 'a', which no .mtl file beside it describes"
    )
    assert caplog.messages == [f"{str(path)!r}: not used: {what}."]


def test_several_materials_of_several_files_each_colour_their_faces(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "second one.mtl").write_text("newmtl b c\nKd 0 0 1\nd 0.5\nmap_Bump n.png\n")
    text = f"mtllib x.mtl\nmtllib second one.mtl\n{SQUARE}usemtl a\nf 1 2 3\nusemtl b c\nf 1 3 4\nl 1 2\nusemtl a\n"
    points, colors = seen(tmp_path / "x.obj", text, "newmtl a\nKd 1 0 0\nTr 0.0\nd 1\n")
    assert_color(colors, np.where(points[:, :1] > points[:, 1:2], [1, 0, 0], [0, 0, 1]))
    unused = "1 line, transparency of 'b c', texture map_Bump"
    assert caplog.messages == [f"{str(tmp_path / 'x.obj')!r}: not used: {unused}."]


def test_black_that_shines_has_the_colour_of_its_light(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = f"mtllib x.mtl\n{SQUARE}usemtl a\n{FACE}"
    for plain, expected in (("0 0 0", [0.2, 0.5, 0]), ("1 0 0", [1, 0, 0])):
        _, colors = seen(tmp_path / "x.obj", text, f"newmtl a\nKd {plain}\nKe 0.2 0.5 0\n")
        assert_color(colors, expected)
    assert caplog.messages == [f"{str(tmp_path / 'x.obj')!r}: not used: light of 'a'."]


def test_colours_of_vertices_count_where_no_texture_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def painted(color: str) -> str:
        return "".join(
            line + f" {color}\n" if line.startswith("v ") else line + "\n" for line in SQUARE.splitlines()
        )

    path, mtl = tmp_path / "x.obj", "newmtl a\nKd 0 0 1\n"
    for text, expected in (
        (painted("1 0.5 0") + FACE, [1, 0.5, 0]),
        (painted("1 0.5 0") + "mtllib x.mtl\nusemtl a\n" + FACE, [1, 0.5, 0]),
        (painted("1 1 1") + "mtllib x.mtl\nusemtl a\n" + FACE, [0, 0, 1]),
        (painted("1 1 1") + FACE, [1, 1, 1]),
        (SQUARE + "#MRGB ffff0080ffff0080\n#MRGB ffff0080ffff0080\n" + FACE, [1, 0, 128 / 255]),
    ):
        assert_color(seen(path, text, mtl)[1], expected)
    assert caplog.messages == [
        f"{str(path)!r}: not used: plain colours of materials, where vertices have colours."
    ]
    caplog.clear()
    assert_color(seen(path, painted("255 51 0") + FACE)[1], [1, 0.2, 0])
    assert caplog.messages == [
        f"{str(path)!r}: its colours (of vertices) reach 255 and are taken for 0 to 255."
    ]
    # A vertex without a colour: what lies at it is grey, the rest keeps its own.
    _, colors = seen(path, painted("1 0 0").replace("v 0 1 0 1 0 0", "v 0 1 0") + "f 1 2 3\nf 1 3 4\n")
    assert colors is not None
    assert {tuple(color) for color in colors.round(3).tolist()} == {(1, 0, 0), (0.5, 0.5, 0.5)}


def test_a_face_without_places_in_a_texture_has_the_plain_colour(tmp_path: Path) -> None:
    Image.fromarray(PIXELS[:1, :1]).save(tmp_path / "t.png")
    text = f"mtllib x.mtl\n{SQUARE}usemtl a\nf 1/1 2/2 3/3\nf 1//1 3//1 4//1\n"
    points, colors = seen(tmp_path / "x.obj", text, "newmtl a\nKd 0 0 1\nmap_Kd t.png\n")
    assert_color(colors, np.where(points[:, :1] > points[:, 1:2], [1, 0, 0], [0, 0, 1]))


def test_negative_corners_count_back_from_the_last_vertex_so_far(tmp_path: Path) -> None:
    one = "v {0} 0 0\nv {1} 0 0\nv {0} 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf -3/-3 -2/-2 -1/-1\n"
    points, _ = seen(tmp_path / "x.obj", one.format(0, 1) + one.format(10, 11))
    assert (points[:, 0] < 2).sum() == (points[:, 0] > 9).sum() == 200


@pytest.mark.parametrize("corner", ["0", "5", "-5", "x", "1.5", str(2**70)])
def test_a_corner_that_names_no_vertex_gets_a_sentence(tmp_path: Path, corner: str) -> None:
    with pytest.raises(ValueError, match=r"x\.obj' cannot be read as a mesh: .*\.$"):
        seen(tmp_path / "x.obj", SQUARE + f"f 1 2 {corner}\n")


def test_lines_continue_and_letters_of_windows_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = f"mtllib grün.mtl\n{SQUARE}usemtl a\nf 1/1 2/2 \\\n3/3 4/4\n"
    (tmp_path / "grün.mtl").write_bytes(b"newmtl a\r\nKd 0.2\t0.4 0.6\r\n")
    (tmp_path / "x.obj").write_bytes(text.encode("cp1252"))
    cloud = sample_mesh(str(tmp_path / "x.obj"), 50, torch.Generator().manual_seed(0))
    assert cloud.colors is not None
    assert_color(cloud.colors.numpy(), [0.2, 0.4, 0.6])
    with caplog.at_level(logging.WARNING):
        assert float(cloud.points[:, :2].max()) > 0.8
    assert caplog.messages == []
