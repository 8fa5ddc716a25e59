"""`.sog`: PlayCanvas's spatially ordered Gaussians, versions 1 and 2, a meta.json and images in a zip file or a folder.

Every image but the palette holds in its i-th pixel, row by row, what belongs to the i-th Gaussian.
"""

from __future__ import annotations

import io
import json
import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from scene.splats.table import MAX_COUNT, Numbers, Splats, from_smallest_three
from utils.axes import axes_of_note
from utils.spherical_harmonics import num_coefficients

META = "meta.json"
PALETTE_COLUMNS = 64
FIRST_PLACE = 252
"""Fourth byte of a rotation whose largest component is w."""
FEW = 65_536
MAX_META = 1 << 20
"""Bytes of the largest meta.json."""
ROOM = 1 << 20
"""Pixels that an image may have beside four for each Gaussian."""


def decode_zip(name: str, content: bytes) -> Splats:
    """The Gaussians of a zip file. Raises ValueError, one sentence, for what is none."""
    with _unzipping(name):
        bundle = zipfile.ZipFile(io.BytesIO(content))
    metas = [each for each in bundle.namelist() if each.split("/")[-1] == META]
    if not metas:
        raise ValueError(f"{name!r} is a zip file without {META}, but a .sog file has one.")
    # Some zip the folder, others what is in it.
    folder = min(metas, key=len).removesuffix(META)

    def read(entry: str, most: int) -> bytes:
        with _unzipping(name), bundle.open(folder + entry) as file:
            return file.read(most + 1)

    return _decode(name, read, len(content))


@contextmanager
def _unzipping(name: str) -> Iterator[None]:
    """Make one sentence of whatever zipfile raises on a damaged file."""
    try:
        yield
    except (
        *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError),
        *(EOFError, KeyError, OSError, ValueError, OverflowError, struct.error),
    ) as error:
        reason = " ".join(str(error.args[0] if error.args else error).split())[:200]
        raise ValueError(f"{name!r} cannot be read as the zip file that a .sog file is: {reason}.") from error


def decode_folder(path: Path) -> Splats:
    """The Gaussians of the meta.json at `path` and the images beside it.

    Raises ValueError, one sentence, for what is none, and OSError for a missing image.
    """

    def read(entry: str, most: int) -> bytes:
        with open(path.parent / (path.name if entry == META else entry), "rb") as file:
            return file.read(most + 1)

    return _decode(
        str(path), read, sum(each.stat().st_size for each in path.parent.iterdir() if each.is_file())
    )


@dataclass(frozen=True)
class _Bundle:
    """A file's name, its meta.json, what reads an entry of so many bytes at most, and the number of Gaussians."""

    name: str
    meta: Any
    read: Callable[[str, int], bytes]
    largest: int
    count: int

    def numbers(self, part: str, key: str, least: int, most: int) -> NDArray[np.float64]:
        """A list of so many finite numbers."""
        found = self.meta[part].get(key) if isinstance(self.meta.get(part), dict) else None
        values = found if isinstance(found, list) else [found]
        sound = all(isinstance(each, (int, float)) and abs(each) < 1e300 for each in values)
        if not sound or not least <= len(values) <= most:
            raise ValueError(
                f"{self.name!r}: {part}.{key} of {META} must be {least if least == most else f'{least} to {most}'} "
                "finite numbers."
            )
        return np.array(values, np.float64)

    def image(
        self, part: str, index: int, least: int | None = None, most: int | None = None
    ) -> NDArray[np.uint8]:
        """An image [H, W, 4]: the index-th file of a part, of at least and at most so many pixels."""
        files = self.meta[part].get("files") if isinstance(self.meta.get(part), dict) else None
        entry = files[index] if isinstance(files, list) and len(files) > index else None
        if not isinstance(entry, str) or not entry or entry != Path(entry).name or "\0" in entry:
            raise ValueError(
                f"{self.name!r}: {part}.files of {META} is {str(files)[:100]!r}, but it must name images beside it."
            )
        content = self.read(entry, self.largest)
        if len(content) > self.largest:
            raise ValueError(f"{self.name!r}: {entry!r} has more bytes than an image of this file.")
        least = self.count if least is None else least
        most = 4 * self.count + ROOM if most is None else most
        try:
            with Image.open(io.BytesIO(content), formats=["WEBP", "PNG"]) as image:
                width, height = image.size
                if not least <= width * height <= most:
                    raise ValueError(
                        f"{self.name!r}: {entry!r} has {width} × {height} pixels, but {least} to {most} are needed."
                    )
                return np.asarray(image.convert("RGBA"))
        except UnidentifiedImageError as error:
            raise ValueError(f"{self.name!r}: {entry!r} is no WebP or PNG image.") from error
        except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{self.name!r}: {entry!r} cannot be read as an image: {reason}.") from error

    def pixels(self, part: str, index: int = 0) -> NDArray[np.uint8]:
        """The pixels [N, 4] of an image with one for each Gaussian."""
        return self.image(part, index).reshape(-1, 4)[: self.count]

    def coded(self, part: str, values: NDArray[np.uint8], channels: int) -> NDArray[np.float64]:
        """Decode bytes [..., channels]: codes of a codebook, in version 1 steps between bounds."""
        if "version" not in self.meta:
            low, high = (self.numbers(part, key, 1, 4) for key in ("mins", "maxs"))
            if min(len(low), len(high)) < channels:
                low, high = low[:1], high[:1]
            return low[:channels] + values / 255 * (high[:channels] - low[:channels])
        codes = self.numbers(part, "codebook", 1, 256)
        if values.size and int(values.max()) >= len(codes):
            raise ValueError(f"{self.name!r}: {part} names code {int(values.max())} of {len(codes)}.")
        return codes[values]


def _decode(name: str, read: Callable[[str, int], bytes], size: int) -> Splats:
    text = read(META, MAX_META)
    if len(text) > MAX_META:
        raise ValueError(f"{name!r}: {META} has more than {MAX_META} bytes.")
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name!r}: {META} cannot be read as JSON.") from error
    if not isinstance(meta, dict) or not {"means", "scales", "quats", "sh0"} <= set(meta):
        raise ValueError(f"{name!r}: {META} lacks means, scales, quats or sh0, which a .sog file has.")
    if meta.get("version", 2) != 2:
        raise ValueError(
            f"{name!r} is a .sog file of version {str(meta['version'])[:20]}, but 1 and 2 are read."
        )
    shape = meta["means"].get("shape") if isinstance(meta["means"], dict) else None
    count = (
        meta.get("count") if "version" in meta else shape[0] if isinstance(shape, list) and shape else None
    )
    # Each takes several bytes; of images of one colour, which take none, there may be a few.
    most = min(MAX_COUNT, size + FEW)
    if type(count) is not int or not 0 <= count <= most:
        raise ValueError(
            f"{name!r} claims {str(count)[:20]} Gaussians in {size} bytes, but it must be a whole number up to {most}."
        )
    # Images are compressed already, so that no entry of a zip file is much larger than the file.
    bundle = _Bundle(name, meta, read, 2 * size + ROOM, count)
    low, high = (bundle.numbers("means", key, 3, 3) for key in ("mins", "maxs"))
    steps = bundle.pixels("means", 0)[:, :3] + 256.0 * bundle.pixels("means", 1)[:, :3]
    logs = low + steps / 65535 * (high - low)
    color = bundle.pixels("sh0")
    if "version" in meta:
        dc, opacities = bundle.coded("sh0", color[:, :3], 3), color[:, 3] / 255
    else:
        values = bundle.coded("sh0", color, 4)
        dc, opacities = values[:, :3], 1 / (1 + np.exp(np.clip(-values[:, 3], -500, 500)))
    with np.errstate(over="ignore"):
        means = np.sign(logs) * np.expm1(np.abs(logs))
    return Splats.of_file(
        means=means,
        log_scales=bundle.coded("scales", bundle.pixels("scales")[:, :3], 3),
        rotations=_rotations(bundle),
        opacities=opacities,
        harmonics=np.concatenate([dc[:, None], _rest(bundle)], axis=1),
        axes=axes_of_note(meta.get("asset")),
    )


def _rotations(bundle: _Bundle) -> Numbers:
    """Quaternions [N, 4] of the three smaller components in units of √½, and 252 + the place of the largest of (w, x, y, z)."""
    pixels = bundle.pixels("quats")
    encoding = bundle.meta["quats"].get("encoding", "quaternion_packed")
    if encoding != "quaternion_packed" or pixels[:, 3].min(initial=255) < FIRST_PLACE:
        raise ValueError(
            f"{bundle.name!r}: quats are not packed as 'quaternion_packed', which alone is read."
        )
    return from_smallest_three(pixels[:, 3] - FIRST_PLACE, (pixels[:, :3] / 255 - 0.5) * math.sqrt(2))


def _rest(bundle: _Bundle) -> Numbers:
    """Harmonics [N, K-1, 3]: entries of a palette with 64 of them in a row, one pixel for each coefficient."""
    part = bundle.meta.get("shN")
    if part is None:
        return np.zeros((bundle.count, 0, 3))
    key, known = ("bands", [1, 2, 3]) if "version" in bundle.meta else ("shape", [9, 24, 45])
    found = part.get(key) if isinstance(part, dict) else None
    columns = found[-1] if isinstance(found, list) and found else found
    if columns not in known:
        raise ValueError(
            f"{bundle.name!r}: shN.{key} of {META} is {str(found)[:40]}, but it must be, or end in, one of {known}."
        )
    harmonics = num_coefficients(known.index(columns) + 1) - 1
    labels = bundle.pixels("shN", 1)
    numbers = labels[:, 0].astype(np.intp) + 256 * labels[:, 1].astype(np.intp)
    rows = int(numbers.max(initial=0)) // PALETTE_COLUMNS + 1
    least = rows * PALETTE_COLUMNS * harmonics
    # Palettes have up to 65,536 entries, those of version 1 with 15 pixels each.
    palette = bundle.image("shN", 0, least, 65_536 * 15)
    height, width, _ = palette.shape
    pitch = width // PALETTE_COLUMNS
    if pitch < harmonics or height < rows:
        raise ValueError(
            f"{bundle.name!r}: the palette of shN has {width} × {height} pixels, too few for its labels."
        )
    entries = palette[:, : PALETTE_COLUMNS * pitch, :3].reshape(-1, pitch, 3)[:, :harmonics]
    return bundle.coded("shN", entries, 3)[numbers]
