"""An asset: the Gaussians of a run, or of a file of any format, and the axes that they are in."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from scene.axes import OURS, Y_DOWN, Y_UP, in_axes
from scene.gaussian_model import GaussianModel
from scene.ply import has_chunks, noted_axes, read_gaussians
from scene.splats import compressed_ply, gltf, sog, splat, spz, usd
from scene.splats.table import Splats
from utils.run_folder import RunFolder

FORMATS = ".ply, .compressed.ply, .splat, .spz, .sog, .splat.glb or .splat.usdz"


@dataclass(frozen=True)
class Format:
    """A format of files.

    axes: up and front of files without a note; reader: the Gaussians at a path.
    """

    name: str
    axes: str
    reader: Callable[[Path], Splats]


def _content(decode: Callable[[str, bytes], Splats]) -> Callable[[Path], Splats]:
    return lambda path: decode(str(path), path.read_bytes())


COMPRESSED_PLY = Format(".compressed.ply", Y_DOWN, compressed_ply.decode)
SPLAT = Format(".splat", Y_DOWN, _content(splat.decode))
SPZ = Format(".spz", Y_UP, _content(spz.decode))
SOG = Format(".sog", Y_DOWN, _content(sog.decode_zip))
SOG_FOLDER = Format(".sog", Y_DOWN, sog.decode_folder)
GLB = Format("glTF", Y_UP, _content(gltf.decode))
USD = Format("USD", Y_UP, usd.read)
NAMES = {
    ".usdc": USD,
    ".usda": USD,
    ".usdz": USD,
    ".splat": SPLAT,
    ".spz": SPZ,
    ".sog": SOG,
    ".glb": GLB,
    sog.META: SOG_FOLDER,
}
"""Formats by the end of a file's name."""
SIGNATURES = {b"\x1f\x8b": SPZ, spz.SIGNATURE: SPZ, b"PK\x03\x04": SOG, b"glTF": GLB, b"PXR-": USD}
"""Formats by the first bytes of a file; those of a .splat may be any."""
OTHERS = {
    ".ksplat": "of mkkellogg's viewer",
    ".gltf": "glTF in JSON, whose buffers lie elsewhere",
    ".pt": "a checkpoint of PyTorch",
    ".pth": "a checkpoint of PyTorch",
    ".ckpt": "a checkpoint of PyTorch",
}
"""Ends of names of Gaussians that are not read, and what they are."""


@dataclass(frozen=True)
class Asset:
    """Gaussians, on the host, as their file has them, and its directions up and to the front."""

    gaussians: GaussianModel
    axes: str

    def upright(self, device: torch.device | None = None) -> GaussianModel:
        """The Gaussians in our axes."""
        raw = in_axes(self.gaussians, OURS, self.axes).state_dict()
        return GaussianModel({name: tensor.to(device) for name, tensor in raw.items()})


def open_asset(path: Path, axes: str | None = None) -> Asset:
    """Read the Gaussians of a run, its final ones or else its newest, or of a file, as they are.

    axes: up and front of the file; without them its own note counts, and then what its format or a run has,
    which a warning reports.

    Raises FileNotFoundError and ValueError, one sentence each, for a path without Gaussians.
    """
    in_folder = is_sog_folder(path)
    of_run = path.is_dir() and not in_folder
    file = path / sog.META if in_folder else RunFolder(path).newest_gaussians() if of_run else path
    raw, noted, usual, form = _read(file)
    if len(raw["xyz"]) == 0:
        raise ValueError(f"{str(path)!r} holds no Gaussians, but an asset has at least 1.")
    if axes is None and noted is None and not of_run and run_of(file) is None:
        up, front = usual.split(",")
        whose = "a run's asset.ply has them" if form == ".ply" else f"is usual in {form}"
        logging.warning(
            "%r has no note of its axes: up is taken as %s and the front as %s, as %s; --input_axes UP,FRONT names others.",
            *(str(file), up, front, whose),
        )
    return Asset(GaussianModel(raw), axes or noted or usual)


def is_sog_folder(path: Path) -> bool:
    """Return whether a folder holds the images of a .sog file, not those of a run."""
    return (path / sog.META).is_file() and not RunFolder(path).config.is_file()


def load_asset(path: Path, device: torch.device | None = None, axes: str | None = None) -> GaussianModel:
    """Load what `open_asset` reads, in our axes. Raises as it does."""
    return open_asset(path, axes).upright(device)


def _read(path: Path) -> tuple[dict[str, Tensor], str | None, str, str]:
    """Parameters in a file, the axes of its note, those that are usual, and the format's name."""
    form = _format_of(path)
    if form is None:
        return read_gaussians(path), noted_axes(path), OURS, ".ply"
    splats = form.reader(path)
    return splats.raw(str(path)), splats.axes, form.axes, form.name


def _format_of(path: Path) -> Format | None:
    """The format of a file, by its name and its first bytes; None is Inria's .ply.

    Raises FileNotFoundError and ValueError, one sentence each, if there is no such file or it is of no format.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{str(path)!r} is not there, but it must be a file of Gaussians.")
    with open(path, "rb") as file:
        start = file.read(4)
    name = path.name.lower()
    named = next((form for end, form in NAMES.items() if name.endswith(end)), None)
    signed = next((form for sign, form in SIGNATURES.items() if start.startswith(sign)), None)
    if start.startswith((b"ply\n", b"ply\r")) or (name.endswith(".ply") and signed is None):
        return COMPRESSED_PLY if has_chunks(path) else None
    # A .usdz is a zip file, as a .sog is.
    form = named if named in (SPLAT, USD) or signed is None else signed
    if form is not None:
        return form
    what = next((what for end, what in OTHERS.items() if name.endswith(end)), None)
    reason = "is no file of Gaussians" if what is None else f"is {what}, which is not read here"
    raise ValueError(f"{str(path)!r} {reason}: give a {FORMATS} file.")


def run_of(path: Path) -> RunFolder | None:
    """Return the run that a folder is of, or that has left a file of Gaussians; None for others."""
    folders = [path.resolve(), *path.resolve().parents]
    for depth, kept in ((0, None), (2, "save"), (3, "point_cloud")):
        if len(folders) > depth and (kept is None or folders[depth - 1].name == kept):
            run = RunFolder(folders[depth])
            if run.config.is_file():
                return run
    return None
