"""Materials of Wavefront OBJ files: .mtl."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np

from scene.meshes.colors import CLAMP, REPEAT, Array, to_linear
from scene.meshes.files_beside import Picture, picture_beside

OPTIONS = {
    "-blendu": 1,
    "-blendv": 1,
    "-bm": 1,
    "-boost": 1,
    "-cc": 1,
    "-clamp": 1,
    "-imfchan": 1,
    "-texres": 1,
    "-type": 1,
    "-mm": 2,
    "-o": 3,
    "-s": 3,
    "-t": 3,
}
"""Options of a texture, and how many words follow each at most; of three, one or two may be left out."""
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
OTHER_TEXTURES = ("map_", "bump", "disp", "decal", "refl", "norm")


@dataclass(frozen=True)
class Material:
    """A material: its plain colour [3] and texture, sRGB, and its light [3], linear.

    A texture's coordinates are times `scale` [2] plus `offset` [2].
    """

    plain: Array | None = None
    texture: Picture | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    wrap: str = REPEAT
    glow: Array | None = None


def read_mtl(path: str, text: str, unused: list[str]) -> dict[str, Material]:
    """Read the materials of a .mtl file's text, which the mesh at `path` names, by name.

    Adds to `unused` what its lines hold and nothing uses. Warnings report pictures that are missing.
    """
    materials: dict[str, Material] = {}
    pictures: dict[str, Picture | None] = {}
    lights: dict[str, Array] = {}
    name = None
    for line in text.splitlines():
        key, _, rest = line.strip().replace("\t", " ").partition(" ")
        key, rest = key.lower(), rest.strip()
        if key == "newmtl":
            name = rest
            materials[name] = Material()
        elif name is None or not rest:
            continue
        elif key == "kd" and (color := _color(rest)) is not None:
            materials[name] = replace(materials[name], plain=color)
        elif key == "ke" and (color := _color(rest)) is not None and color.any():
            lights[name] = to_linear(color)
        elif key == "map_kd":
            options, file = texture_of(rest)
            if file not in pictures:
                pictures[file] = picture_beside(path, file)
            materials[name] = _textured(materials[name], pictures[file], options)
            ignored = [option for option in options if option not in ("-s", "-o", "-clamp")]
            unused += [f"option {option} of texture {file!r}" for option in ignored]
        elif key.startswith(OTHER_TEXTURES):
            unused.append(f"texture {line.strip().split()[0]}")
        elif (key == "d" and _first(rest) < 1) or (key == "tr" and _first(rest) > 0):
            unused.append(f"transparency of {name!r}")
    for name, light in lights.items():
        material = materials[name]
        # Light stands for a colour where there is none: programs write it beside colours and mean nothing by it.
        if material.texture is None and (material.plain is None or not material.plain.any()):
            materials[name] = replace(material, glow=light)
        else:
            unused.append(f"light of {name!r}")
    return materials


def texture_of(rest: str) -> tuple[dict[str, list[str]], str]:
    """Split what follows map_Kd into its options, with their words, and the name of the file.

    The name is the rest of the line, spaces included.
    """
    options: dict[str, list[str]] = {}
    while (found := re.match(r"(-\w+)\s+", rest)) is not None and found[1].lower() in OPTIONS:
        option, rest = found[1].lower(), rest[found.end() :]
        words: list[str] = []
        while len(words) < OPTIONS[option]:
            word, _, after = rest.partition(" ")
            if not after or (words and OPTIONS[option] > 1 and NUMBER.fullmatch(word) is None):
                break
            words.append(word)
            rest = after.lstrip()
        options[option] = words
    return options, rest.strip().strip('"')


def _textured(material: Material, picture: Picture | None, options: dict[str, list[str]]) -> Material:
    def pair(option: str, default: float) -> tuple[float, float]:
        numbers = [float(word) for word in options.get(option, []) if NUMBER.fullmatch(word)]
        u, v = (*numbers, default, default)[:2] if numbers else (default, default)
        return u, v

    clamped = options.get("-clamp", ["off"])[:1] == ["on"]
    scale, offset = pair("-s", 1.0), pair("-o", 0.0)
    wrap = CLAMP if clamped else REPEAT
    return replace(material, texture=picture, scale=scale, offset=offset, wrap=wrap)


def _color(rest: str) -> Array | None:
    """A colour [3] in [0, 1] of one or three numbers."""
    words = rest.split()
    words = words[:1] * 3 if len(words) < 3 else words[:3]
    if not all(NUMBER.fullmatch(word) for word in words):
        return None
    return np.clip(np.array([float(word) for word in words]), 0.0, 1.0)


def _first(rest: str) -> float:
    """The first number of a line, after an option such as -halo; NaN if there is none."""
    return next((float(word) for word in rest.split() if NUMBER.fullmatch(word)), float("nan"))
