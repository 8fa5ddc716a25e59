"""The colours of a part of a mesh: of its vertices, faces, textures and material."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scene.meshes.files_beside import Picture

Array = np.ndarray
Decode = Callable[[Picture], Array | None]
REPEAT, MIRROR, CLAMP = "repeat", "mirror", "clamp"


@dataclass(frozen=True)
class Texture:
    """A picture, and the place of each vertex in it: uv [V, 2], where (0, 0) is its lower left.

    A vertex without a place has NaN. `wrap` is what comes beyond [0, 1] along u and along v.
    """

    picture: Picture
    uv: Array
    wrap: tuple[str, str] = (REPEAT, REPEAT)

    def colors(self, pixels: Array, uv: Array) -> Array:
        """Return the nearest pixels [M, 3] in [0, 1] at uv [M, 2], NaN where that is not finite."""
        known = np.isfinite(uv)
        u, v = (_wrapped(np.where(known, uv, 0.0)[:, axis], self.wrap[axis]) for axis in range(2))
        height, width = pixels.shape[:2]
        column = np.minimum(u * width, width - 1).astype(np.int64)
        row = np.minimum(v * height, height - 1).astype(np.int64)
        return np.where(known.all(axis=1)[:, None], pixels[height - 1 - row, column] / 255, np.nan)


def _wrapped(values: Array, how: str) -> Array:
    """Texture coordinates in [0, 1]; both ends of that stay as they are."""
    if how == CLAMP:
        return np.clip(values, 0.0, 1.0)
    if how == MIRROR:
        return 1.0 - np.abs(values % 2.0 - 1.0)
    return np.where((values >= 0) & (values <= 1), values, values % 1)


@dataclass(frozen=True)
class Paint:
    """Colours of a part, all of them optional.

    A plain colour [3], colours of vertices [V, 3] and of faces [F, 3], and a texture are sRGB, and the last of
    them that a point has hides the others. If `multiplied`, they are linear, except for the texture, and are
    multiplied, as in glTF. `glow` [3], linear, times its texture is light that is added.
    """

    plain: Array | None = None
    vertices: Array | None = None
    faces: Array | None = None
    texture: Texture | None = None
    multiplied: bool = False
    glow: Array | None = None
    glow_texture: Texture | None = None

    def colors(
        self, interpolate: Callable[[Array], Array], faces: Array | None, count: int, decode: Decode
    ) -> Array | None:
        """Return sRGB colours [count, 3] in [0, 1], NaN where a point has none; None if no point has any.

        `interpolate` turns values of vertices [V, C] into those of the points [count, C], and `faces` [count]
        names the face of each. `decode` gives a picture's pixels.
        """
        layers = [None if self.plain is None else np.tile(self.plain, (count, 1))]
        layers.append(None if self.faces is None or faces is None else self.faces[faces])
        layers.append(None if self.vertices is None else interpolate(self.vertices))
        texels = _texels(self.texture, interpolate, decode)
        if self.multiplied:
            layers.append(None if texels is None else to_linear(texels))
            known = [
                np.clip(np.where(np.isnan(layer), 1.0, layer), 0, 1) for layer in layers if layer is not None
            ]
            colors = to_srgb(np.prod(known, axis=0)) if known else None
        else:
            colors = None
            for layer in [*layers, texels]:
                if layer is not None:
                    colors = layer if colors is None else np.where(np.isnan(layer), colors, layer)
            colors = None if colors is None else np.clip(colors, 0, 1)
        return colors if self.glow is None else self._glowing(colors, interpolate, count, decode)

    def _glowing(
        self, colors: Array | None, interpolate: Callable[[Array], Array], count: int, decode: Decode
    ) -> Array:
        """`colors` with the light added."""
        assert self.glow is not None
        light = np.tile(self.glow, (count, 1))
        if self.glow_texture is not None:
            texels = _texels(self.glow_texture, interpolate, decode)
            light = light * (0.0 if texels is None else np.nan_to_num(to_linear(texels)))
        # Light brighter than the picture can show keeps its hue.
        light = light / np.maximum(light.max(axis=1, keepdims=True), 1.0)
        below = 0.0 if colors is None else np.nan_to_num(to_linear(colors))
        return to_srgb(np.clip(below + light, 0, 1))


def _texels(texture: Texture | None, interpolate: Callable[[Array], Array], decode: Decode) -> Array | None:
    pixels = None if texture is None else decode(texture.picture)
    return None if texture is None or pixels is None else texture.colors(pixels, interpolate(texture.uv))


def to_srgb(linear: Array) -> Array:
    """Return the sRGB values of linear ones in [0, 1] (IEC 61966-2-1)."""
    return np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    )


def to_linear(srgb: Array) -> Array:
    """Return the linear values of sRGB ones in [0, 1], the inverse of to_srgb."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
