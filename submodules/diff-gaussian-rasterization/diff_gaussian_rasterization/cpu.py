"""The CPU backend: csrc/ behind a C ABI, loaded with ctypes, in the build that suits this processor best."""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, byref, c_float, c_int32, c_int64, c_void_p
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .scene import COUNTS, Gaussians, Views

LEVELS = ("portable", "avx2", "avx512")


_CAMERAS = ("viewmats", "focals", "principals", "backgrounds")
_PARAMETERS = ("means", "scales", "rotations", "opacities", "shs", "colors", "covariances")


class _Scene(ctypes.Structure):
    """dgr::Scene of csrc/types.h, field by field."""

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
        *((name, c_void_p) for name in (*_PARAMETERS, *_CAMERAS)),
    )


class _Images(ctypes.Structure):
    """dgr::Images."""

    _fields_ = tuple((name, c_void_p) for name in ("rgb", "depth", "alpha", "radii", "means2d", "fates"))


class _Gradients(ctypes.Structure):
    """dgr::Gradients."""

    _fields_ = tuple((name, c_void_p) for name in ("rgb", "depth", "alpha", *_PARAMETERS, "means2d"))


@functools.cache
def load_library(level: str) -> ctypes.CDLL:
    """The rasterizer compiled for "portable", "avx2" or "avx512"."""
    library = ctypes.CDLL(str(_path(level)))
    library.dgr_create.restype = c_void_p
    library.dgr_destroy.argtypes = [c_void_p]
    library.dgr_forward.argtypes = [c_void_p, POINTER(_Scene), POINTER(_Images)]
    library.dgr_backward.argtypes = [c_void_p, POINTER(_Scene), POINTER(_Images), POINTER(_Gradients)]
    return library


@functools.cache
def best_level() -> str:
    """The fastest of the builds that this processor runs."""
    best = load_library("portable").dgr_processor_level()
    return next(name for name in LEVELS[best::-1] if _path(name).exists())


def _path(level: str) -> Path:
    return Path(__file__).with_name(f"libdgr_{level}.so")


class _Workspace:
    """Memory from a forward to its backward, used again afterwards, so that a call touches no new pages."""

    idle: ClassVar[dict[str, list[_Workspace]]] = {}
    KEPT = 2  # a training loop holds one while it asks for the next

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


def _scene(views: Views, parameters: tuple[Tensor | None, ...], cameras: tuple[Tensor, ...]) -> _Scene:
    means, shs = parameters[0], parameters[4]
    assert means is not None
    return _Scene(
        means.shape[0],
        cameras[0].shape[0],
        views.width,
        views.height,
        views.sh_degree if shs is not None else 0,
        0 if shs is None else shs.shape[1],
        views.antialiasing,
        torch.get_num_threads(),
        views.scale_modifier,
        views.near,
        *map(_pointer, parameters),
        *map(_pointer, cameras),
    )


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        level: str,
        views: Views,
        values: Tensor,
        anchor: Tensor,
        backgrounds: Tensor,
        viewmats: Tensor,
        focals: Tensor,
        principals: Tensor,
        *parameters: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        n, v = values.shape[1], values.shape[0]
        rgb = torch.empty(v, 3, views.height, views.width, dtype=torch.float32)
        depth = torch.empty(v, 1, views.height, views.width, dtype=torch.float32)
        alpha = torch.empty_like(depth)
        radii = torch.empty(v, n, dtype=torch.int32)
        counts = torch.empty(v, len(COUNTS), dtype=torch.int32)
        cameras = (viewmats, focals, principals, backgrounds)
        scene = _scene(views, parameters, cameras)
        images = _Images(*map(_pointer, (rgb, depth, alpha, radii, values, counts)))
        lease = _Lease(level)
        space = lease.workspace
        _check(space.library.dgr_forward(space.handle, byref(scene), byref(images)))
        ctx.views, ctx.lease = views, lease
        ctx.save_for_backward(*cameras, *parameters, rgb, depth, alpha)
        ctx.mark_non_differentiable(radii, counts)
        ctx.set_materialize_grads(False)
        return rgb, depth, alpha, radii, counts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        cameras, parameters, (rgb, depth, alpha) = saved[:4], saved[4:-3], saved[-3:]
        given = tuple(None if g is None else g.contiguous() for g in upstream[:3])
        wanted = ctx.needs_input_grad
        grads = [
            torch.empty_like(p) if p is not None and want else None for p, want in zip(parameters, wanted[8:])
        ]
        v, n = cameras[0].shape[0], parameters[0].shape[0]
        means2d = rgb.new_empty(v, n, 2) if wanted[3] else None
        scene = _scene(ctx.views, parameters, cameras)
        images = _Images(*map(_pointer, (rgb, depth, alpha)))
        gradients = _Gradients(*map(_pointer, (*given, *grads, means2d)))
        space = ctx.lease.workspace
        _check(space.library.dgr_backward(space.handle, byref(scene), byref(images), byref(gradients)))
        background = None
        if wanted[4]:
            background = torch.zeros_like(cameras[3])
            if given[0] is not None:
                background = (given[0] * (1 - alpha)).sum(dim=(2, 3))
        return (None, None, None, means2d, background, None, None, None, *grads)


def rasterize(
    g: Gaussians, views: Views, anchor: Tensor, values: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The contract of reference.rasterize, in float32, to the same bytes for any number of threads."""
    for name in ("viewmats", "focals", "principals"):
        if getattr(views, name).requires_grad:
            raise ValueError(f'{name} requires a gradient, which only backend="reference" computes.')
    cameras = (views.backgrounds, views.viewmats, views.focals, views.principals)
    parameters = (g.means, g.scales, g.rotations, g.opacities, g.shs, g.colors, g.covariances)
    single = values if values.dtype == torch.float32 else values.float()
    outputs = _Rasterize.apply(
        best_level(),
        views,
        single,
        anchor,
        *(c.float().contiguous() for c in cameras),
        *(None if p is None else p.float().contiguous() for p in parameters),
    )
    if single is not values:
        values.copy_(single)
    return outputs
