"""`.sog`, version 2: PlayCanvas's spatially ordered Gaussians, a zip file of lossless WebP images and a meta.json.

Every image but the palette holds in its i-th pixel, row by row, what belongs to the i-th Gaussian.
"""

from __future__ import annotations

import io
import json
import math
import zipfile

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from exporting.glb import GENERATOR
from exporting.splats.packing import morton_order, to_bytes
from scene.splats.sog import FIRST_PLACE, META, PALETTE_COLUMNS
from scene.splats.table import Floats, Splats, smallest_three
from utils.axes import note

Bytes = NDArray[np.uint8]
CODES = 256
MAX_PALETTE = 65_536
"""Entries that a label of two bytes can name: with so many Gaussians or fewer, each has its own."""
CLUSTERED_PALETTE = 8_192
PALETTE_ROUNDS, CODE_ROUNDS = 4, 8
"""Rounds of k-means."""


def encode(splats: Splats) -> bytes:
    """The file, in Morton's order, which WebP compresses well."""
    splats = splats.rows(morton_order(splats.means))
    means, bounds = _means(splats.means)
    scales, scale_codes = _coded(splats.log_scales)
    colors, color_codes = _coded(splats.harmonics[:, 0])
    images = {
        "means_l.webp": _pixels(means & 255),
        "means_u.webp": _pixels(means >> 8),
        "scales.webp": _pixels(scales),
        "quats.webp": _pixels(_rotations(splats.rotations)),
        "sh0.webp": _pixels(np.column_stack([colors, to_bytes(splats.opacities * 255)])),
    }
    meta = {
        "version": 2,
        "count": len(splats),
        "means": {**bounds, "files": ["means_l.webp", "means_u.webp"]},
        "scales": {"codebook": scale_codes, "files": ["scales.webp"]},
        "quats": {"files": ["quats.webp"]},
        "sh0": {"codebook": color_codes, "files": ["sh0.webp"]},
    }
    if splats.axes is not None:
        meta["asset"] = {"generator": GENERATOR, **note(splats.axes)}
    if splats.sh_degree > 0:
        palette, labels = _palette(splats.harmonics[:, 1:])
        entries, codes = _coded(palette)
        images["shN_centroids.webp"] = _palette_pixels(entries)
        images["shN_labels.webp"] = _pixels(np.column_stack([labels & 255, labels >> 8, 0 * labels]))
        files = ["shN_centroids.webp", "shN_labels.webp"]
        meta["shN"] = {"count": len(palette), "bands": splats.sh_degree, "codebook": codes, "files": files}
    return _zip(images, json.dumps(meta))


def _zip(images: dict[str, Bytes], meta: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as bundle:
        # ZipInfo's own date, not today's: the same Gaussians give the same bytes.
        bundle.writestr(zipfile.ZipInfo(META), meta)
        for name, pixels in images.items():
            bundle.writestr(zipfile.ZipInfo(name), _webp(pixels))
    return file.getvalue()


def _webp(pixels: Bytes) -> bytes:
    file = io.BytesIO()
    # exact: or the colours under an alpha of 0 would be dropped.
    Image.fromarray(pixels, "RGBA").save(file, format="WEBP", lossless=True, exact=True)
    return file.getvalue()


def _pixels(values: NDArray[np.integer]) -> Bytes:
    """Values [N, 3 or 4] in [0, 255] as an image [H, W, 4] of multiples of 4, as PlayCanvas's own writer has them; alpha
    is 255 where there is no fourth value."""
    count = len(values)
    width = 4 * math.ceil(math.sqrt(count) / 4)
    height = 4 * math.ceil(count / width / 4)
    image = np.zeros((height * width, 4), dtype=np.uint8)
    image[:, 3] = 255
    image[:count, : values.shape[1]] = values
    return image.reshape(height, width, 4)


def _means(means: Floats) -> tuple[NDArray[np.uint16], dict[str, list[float]]]:
    """Coordinates [N, 3] as 16 bits between the bounds of sign(x) ln(1 + |x|), and these bounds."""
    logs = np.sign(means) * np.log1p(np.abs(means.astype(np.float64)))
    low, high = logs.min(axis=0), logs.max(axis=0)
    shares = (logs - low) / np.maximum(high - low, 1e-30)
    return np.rint(shares * 65535).astype(np.uint16), {"mins": low.tolist(), "maxs": high.tolist()}


def _rotations(rotations: Floats) -> Bytes:
    """The three smaller components [N, 3] in units of √½, and 252 + the place of the largest of (w, x, y, z)."""
    largest, others = smallest_three(rotations)
    return np.column_stack(
        [to_bytes((others * math.sqrt(2) * 0.5 + 0.5) * 255), FIRST_PLACE + largest.astype(np.uint8)]
    )


def _coded(values: Floats) -> tuple[Bytes, list[float]]:
    """Number of the nearest of 256 codes for every value, and the codes, ascending: k-means in one dimension."""
    flat = np.sort(values, axis=None).astype(np.float64)
    # At first, one code for each equal share of the values and one for each equal piece of their range: none is far from all.
    shares = flat[np.linspace(0, len(flat) - 1, CODES // 2).round().astype(int)]
    codes = np.sort(np.concatenate([shares, np.linspace(flat[0], flat[-1], CODES // 2)]))
    sums = np.concatenate([[0.0], np.cumsum(flat)])
    for _ in range(CODE_ROUNDS):
        # The values nearest to a code are a slice of the sorted ones.
        edges = np.searchsorted(flat, (codes[1:] + codes[:-1]) / 2)
        edges = np.concatenate([[0], edges, [len(flat)]])
        counts = np.diff(edges)
        codes = np.where(counts > 0, np.diff(sums[edges]) / np.maximum(counts, 1), codes)
    codes = np.sort(codes).astype(np.float32)
    return np.searchsorted((codes[1:] + codes[:-1]) / 2, values).astype(np.uint8), codes.tolist()


def _palette(rest: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """Rows [P, K-1, 3] of which each Gaussian's harmonics [N, K-1, 3] are near one, and its number [N]."""
    count = len(rest)
    if count <= MAX_PALETTE:
        return rest, np.arange(count)
    points = torch.from_numpy(rest.reshape(count, -1))
    centers = points[torch.linspace(0, count - 1, CLUSTERED_PALETTE).round().long()]
    for _ in range(PALETTE_ROUNDS):
        labels = _nearest(points, centers)
        sizes = torch.bincount(labels, minlength=len(centers))[:, None]
        sums = torch.zeros_like(centers).index_add_(0, labels, points)
        centers = torch.where(sizes > 0, sums / sizes.clamp_min(1), centers)
    return centers.reshape(-1, *rest.shape[1:]).numpy(), _nearest(points, centers).numpy()


def _nearest(points: Tensor, centers: Tensor) -> Tensor:
    """The number of the nearest of centers [P, D] for each of points [N, D]: [N]."""
    half = (centers * centers).sum(dim=1) / 2
    return torch.cat([(half - some @ centers.T).argmin(dim=1) for some in points.split(2048)])


def _palette_pixels(entries: Bytes) -> Bytes:
    """Entries [P, K-1, 3] as an image with 64 of them in a row, one pixel for each coefficient."""
    count, harmonics, _ = entries.shape
    rows = math.ceil(count / PALETTE_COLUMNS)
    image = np.full((rows * PALETTE_COLUMNS * harmonics, 4), 255, dtype=np.uint8)
    image[: count * harmonics, :3] = entries.reshape(-1, 3)
    return image.reshape(rows, PALETTE_COLUMNS * harmonics, 4)
