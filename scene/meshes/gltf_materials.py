"""Materials and textures of glTF 2.0 as the colours that a person sees in full light."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import unquote

import numpy as np

from scene.meshes.colors import CLAMP, MIRROR, REPEAT, Array, Paint, Texture
from scene.meshes.files_beside import Picture, picture_beside
from scene.meshes.gltf_accessors import numbers
from scene.meshes.gltf_file import KTX2, GltfFile

SPECULAR, TRANSFORM = "KHR_materials_pbrSpecularGlossiness", "KHR_texture_transform"
STRENGTH = "KHR_materials_emissive_strength"
WRAPS = {33071: CLAMP, 33648: MIRROR, 10497: REPEAT}
OTHER_FORMATS = ("EXT_texture_webp", "EXT_texture_avif", "MSFT_texture_dds")
"""Extensions that name a picture in a format of their own, which Pillow reads."""
KTX2_MAGIC = b"\xabKTX 20\xbb"


class Materials:
    """The materials of a file, with what nothing uses of them."""

    def __init__(self, file: GltfFile, unused: list[str]) -> None:
        """Read from `file`; what is not used is added to `unused`."""
        self._file, self._unused = file, unused
        self._pictures: dict[int, Picture | None] = {}
        # trimesh writes colours as it has them, in sRGB, and signs its files. By sections 3.7.2.1 and 3.9.2 they
        # are linear.
        self._linear = "trimesh" not in str(file.document["asset"].get("generator"))

    def paint(self, primitive: dict[str, Any]) -> Paint:
        """Return what colours a primitive; raises ValueError, KeyError or TypeError where it is not sound."""
        attributes = primitive["attributes"]
        painted = numbers(self._file, attributes["COLOR_0"])[:, :3] if "COLOR_0" in attributes else None
        if "material" not in primitive:
            return Paint(vertices=painted, multiplied=self._linear)
        material = self._file.entry("materials", primitive["material"])
        self._report(material)
        factor, info = _base(material)
        glow = np.asarray(material.get("emissiveFactor", (0, 0, 0)), dtype=np.float64)
        glow = glow * float(material.get("extensions", {}).get(STRENGTH, {}).get("emissiveStrength", 1.0))
        if glow.shape != (3,) or not np.isfinite(glow).all():
            raise ValueError(f"its emissiveFactor is {str(glow)[:50]}, but it must be three numbers")
        glow_texture = None
        if glow.any() and (glow_info := material.get("emissiveTexture")) is not None:
            glow_texture = self._texture(glow_info, attributes)
            glow = glow if glow_texture is not None else np.zeros(3)
        if glow.any() and factor is None and info is None and painted is None:
            factor = np.zeros(
                3
            )  # light alone is shown as it is, not on the white that a lack of colour means
        return Paint(
            plain=np.ones(3) if factor is None else factor,
            vertices=painted,
            texture=None if info is None else self._texture(info, attributes),
            multiplied=self._linear,
            glow=np.clip(glow, 0, None) if glow.any() else None,
            glow_texture=glow_texture,
        )

    def _report(self, material: dict[str, Any]) -> None:
        """Report what is not used of a material."""
        slots = [name for name in ("normalTexture", "occlusionTexture") if name in material] + [
            name for name in ("metallicRoughnessTexture",) if name in material.get("pbrMetallicRoughness", {})
        ]
        self._unused += [f"{name}s" for name in slots]
        if material.get("alphaMode", "OPAQUE") != "OPAQUE":
            self._unused.append("transparency")

    def _texture(self, info: dict[str, Any], attributes: dict[str, Any]) -> Texture | None:
        """The texture that a material names, at the coordinates that it names."""
        transform = info.get("extensions", {}).get(TRANSFORM, {})
        name = f"TEXCOORD_{transform.get('texCoord', info.get('texCoord', 0))}"
        texture = self._file.entry("textures", info["index"])
        picture = self._picture(texture)
        if picture is None:
            return None
        if name not in attributes:
            self._unused.append(f"texture {picture.name!r} where a mesh lacks {name}")
            return None
        sampler = self._file.entry("samplers", texture["sampler"]) if "sampler" in texture else {}
        uv = transformed(numbers(self._file, attributes[name])[:, :2], transform)
        # The origin is the picture's upper left (section 3.8.2).
        wrap = (WRAPS[sampler.get("wrapS", 10497)], WRAPS[sampler.get("wrapT", 10497)])
        return Texture(picture, np.stack([uv[:, 0], 1.0 - uv[:, 1]], axis=1), wrap)

    def _picture(self, texture: dict[str, Any]) -> Picture | None:
        extensions = texture.get("extensions", {})
        sources = [texture] + [extensions[name] for name in OTHER_FORMATS if name in extensions]
        index = next((source["source"] for source in sources if "source" in source), None)
        if index is None:
            if KTX2 in extensions:
                raise ValueError(_in_ktx2(self._file.path))
            return None
        if index not in self._pictures:
            self._pictures[index] = self._read(self._file.entry("images", index), index)
        return self._pictures[index]

    def _read(self, image: dict[str, Any], index: int) -> Picture | None:
        path = self._file.path
        if "bufferView" in image:
            picture = Picture(path, f"images[{index}]", bytes(self._file.view(image["bufferView"])[0]))
        elif image["uri"].startswith("data:"):
            picture = Picture(path, f"images[{index}]", self._file.uri(image["uri"]) or b"")
        else:
            found = picture_beside(path, unquote(image["uri"]))
            if found is None:
                return None
            picture = found
        if image.get("mimeType") == "image/ktx2" or picture.content.startswith(KTX2_MAGIC):
            raise ValueError(_in_ktx2(path))
        return picture


def _in_ktx2(path: str) -> str:
    return (
        f"{path!r} has textures in KTX2 ({KTX2}), but PNG, JPEG or WebP is needed: export it so, "
        "or run `gltf-transform ktxdecompress` on it."
    )


def _base(material: dict[str, Any]) -> tuple[Array | None, dict[str, Any] | None]:
    """The factor [3] of a material's base colour and what names its texture, None where it has none."""
    metallic = material.get("pbrMetallicRoughness", {})
    factor, info = metallic.get("baseColorFactor"), metallic.get("baseColorTexture")
    if (specular := material.get("extensions", {}).get(SPECULAR)) is not None:
        factor, info = specular.get("diffuseFactor"), specular.get("diffuseTexture")
        if factor is not None and not any(factor[:3]):
            # Metals have no diffuse colour: what is seen of them is the reflection's.
            shiny = specular.get("specularGlossinessTexture")
            if "specularFactor" in specular or shiny is not None:
                factor, info = specular.get("specularFactor"), shiny
    if factor is None:
        return None, info
    color = np.asarray(factor, dtype=np.float64)[:3]
    if color.shape != (3,):
        raise ValueError(f"a material's colour has {len(color)} channels, but it must have at least 3")
    return color, info


def transformed(uv: Array, transform: dict[str, Any]) -> Array:
    """Return texture coordinates [V, 2] scaled, turned and moved by KHR_texture_transform.

    The turn is counter-clockwise as one sees it, where v points down.
    """
    u_scale, v_scale = transform.get("scale", (1.0, 1.0))
    u_offset, v_offset = transform.get("offset", (0.0, 0.0))
    angle = transform.get("rotation", 0.0)
    cos, sin = math.cos(angle), math.sin(angle)
    u, v = uv[:, 0] * u_scale, uv[:, 1] * v_scale
    return np.stack([cos * u + sin * v + u_offset, cos * v - sin * u + v_offset], axis=1)
