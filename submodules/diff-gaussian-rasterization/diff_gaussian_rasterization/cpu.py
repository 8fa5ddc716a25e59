"""CPU backend: csrc/ behind a C ABI, loaded with ctypes, in the fastest build that runs here or the one chosen."""

from __future__ import annotations

import ctypes
import functools
import os
from ctypes import POINTER, byref, c_float, c_int32, c_int64, c_void_p
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from .function import CAMERAS, PARAMETERS, Images, Tensors, rasterize_with
from .scene import Gaussians, Views

LEVELS = ("portable", "avx2", "avx512")
CHOICE = "DGR_CPU_LEVEL"
"""Environment variable that names one of the levels."""

_WANTED = (*PARAMETERS, "means2d", "viewmats", "focals", "principals")  # whose gradients backward gives


class _Scene(ctypes.Structure):
    """Structure dgr::Scene of csrc/types.h, field by field."""

    _fields_ = (
        ("count", c_int64),
        ("views", c_int64),
        ("width", c_int32),
        ("height", c_int32),
        ("sh_degree", c_int32),
        ("sh_coefficients", c_int32),
        ("antialiasing", c_int32),
        ("threads", c_int32),
        ("scale_modifier", c_float),
        ("near_plane", c_float),
        *((name, c_void_p) for name in (*PARAMETERS, *CAMERAS)),
    )


class _Images(ctypes.Structure):
    """Structure dgr::Images."""

    _fields_ = tuple((name, c_void_p) for name in ("rgb", "depth", "alpha", "radii", "means2d", "counts"))


class _Gradients(ctypes.Structure):
    """Structure dgr::Gradients."""

    _fields_ = tuple((name, c_void_p) for name in ("rgb", "depth", "alpha", *_WANTED))


@functools.cache
def load_library(level: str) -> ctypes.CDLL:
    """The rasterizer compiled for "portable", "avx2" or "avx512". Raises RuntimeError if this installation
    has none.
    """
    if not _path("portable").exists():
        raise RuntimeError(
            "The CPU backend is not built, it needs a C++17 compiler while this package is being installed."
        )
    library = ctypes.CDLL(str(_path(level)))
    library.dgr_create.restype = c_void_p
    library.dgr_destroy.argtypes = [c_void_p]
    library.dgr_forward.argtypes = [c_void_p, POINTER(_Scene), POINTER(_Images)]
    library.dgr_backward.argtypes = [c_void_p, POINTER(_Scene), POINTER(_Images), POINTER(_Gradients)]
    return library


@functools.cache
def levels() -> tuple[str, ...]:
    """Builds that this installation has and this processor runs, the fastest last."""
    best = load_library("portable").dgr_processor_level()
    return tuple(name for name in LEVELS[: best + 1] if _path(name).exists())


def chosen_level() -> str:
    """The build that the environment names, else the fastest. Raises ValueError if it names none of `levels()`."""
    found = levels()
    chosen = os.environ.get(CHOICE) or found[-1]
    if chosen not in found:
        raise ValueError(
            f"{CHOICE} is {chosen!r}, it must be one that this processor and this installation have: {', '.join(found)}."
        )
    return chosen


def _path(level: str) -> Path:
    return Path(__file__).with_name(f"libdgr_{level}.so")


class _Workspace:
    """Memory from a forward to its backward, used again afterwards, so that a call touches no new pages."""

    idle: ClassVar[dict[str, list[_Workspace]]] = {}
    KEPT = 2  # a training loop holds one while it takes the next

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.handle = library.dgr_create()
        if not self.handle:
            raise MemoryError("Not enough memory for the rasterizer's workspace.")

    def __del__(self) -> None:
        self.library.dgr_destroy(self.handle)


class _Lease:
    """A workspace taken from the idle ones, given back when nobody holds the lease any more."""

    def __init__(self, level: str) -> None:
        self.idle = _Workspace.idle.setdefault(level, [])
        try:
            self.workspace = self.idle.pop()
        except IndexError:
            self.workspace = _Workspace(load_library(level))

    def __del__(self) -> None:
        if hasattr(self, "workspace") and len(self.idle) < _Workspace.KEPT:
            self.idle.append(self.workspace)


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _check(code: int) -> None:
    if code == 1:
        raise MemoryError(
            "The rasterizer ran out of memory, it needs fewer views per call, fewer Gaussians or smaller images."
        )
    if code == 2:
        raise ValueError(
            "The Gaussians cover more than 2^32 tiles in all, their scales must be smaller for these cameras."
        )


def _scene(views: Views, inputs: Tensors) -> _Scene:
    means, shs, viewmats = inputs["means"], inputs["shs"], inputs["viewmats"]
    assert means is not None
    assert viewmats is not None
    return _Scene(
        means.shape[0],
        viewmats.shape[0],
        views.width,
        views.height,
        views.sh_degree if shs is not None else 0,
        0 if shs is None else shs.shape[1],
        views.antialiasing,
        torch.get_num_threads(),
        views.scale_modifier,
        views.near,
        *(_pointer(inputs[name]) for name in (*PARAMETERS, *CAMERAS)),
    )


def _images(images: Images) -> _Images:
    return _Images(
        *(_pointer(getattr(images, name)) for name in ("rgb", "depth", "alpha", "radii", "means2d", "counts"))
    )


class Engine:
    """The library of one instruction set ("portable", "avx2" or "avx512")."""

    def __init__(self, level: str) -> None:
        self.level = level

    def forward(self, views: Views, inputs: Tensors, images: Images) -> _Lease:
        lease = _Lease(self.level)
        space = lease.workspace
        _check(space.library.dgr_forward(space.handle, byref(_scene(views, inputs)), byref(_images(images))))
        return lease

    def backward(
        self,
        state: _Lease,
        views: Views,
        inputs: Tensors,
        images: Images,
        upstream: Tensors,
        gradients: Tensors,
    ) -> None:
        space, scene = state.workspace, _scene(views, inputs)
        into = _Gradients(
            *map(_pointer, upstream.values()),
            *(_pointer(gradients[name]) for name in _WANTED),
        )
        _check(space.library.dgr_backward(space.handle, byref(scene), byref(_images(images)), byref(into)))


def rasterize(
    g: Gaussians, views: Views, anchor: Tensor, values: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute by the contract of reference.rasterize, in float32, to the same bytes for any number of threads."""
    return rasterize_with(Engine(chosen_level()), g, views, anchor, values)
