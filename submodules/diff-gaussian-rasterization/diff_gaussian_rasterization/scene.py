"""Scene that every backend is given: the parameters of the Gaussians and the cameras, checked once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, TypeVar

import torch
from torch import Tensor

# What becomes of a Gaussian in a view, the first that holds: a parameter is NaN or infinite (or the rotation 0); at the near
# plane or behind it; the projected covariance is not an ellipse of finite size; the opacity lies below 1/255; no pixel of the
# image lies in its bounds; and those that are drawn come first.
COUNTS = ("visible", "nonfinite", "behind", "degenerate", "faint", "outside")


@dataclass(frozen=True)
class Gaussians:
    """N Gaussians in world units; exactly one of each alternative is given.

    means [N, 3]; opacities [N] in [0, 1]; scales [N, 3] (standard deviations) with rotations [N, 4] (w, x, y, z;
    any length but 0), or covariances [N, 6] (xx, xy, xz, yy, yz, zz); shs [N, K, 3] or colors [N, 3].
    """

    means: Tensor
    opacities: Tensor
    scales: Tensor | None
    rotations: Tensor | None
    covariances: Tensor | None
    shs: Tensor | None
    colors: Tensor | None


@dataclass(frozen=True)
class Views:
    """V cameras and how to render them.

    viewmats [V, 4, 4] world to camera (rigid, OpenCV axes, column vectors); focals, principals [V, 2] in pixels,
    pixel centres at whole numbers; backgrounds [V, 3]; near in world units.
    """

    viewmats: Tensor
    focals: Tensor
    principals: Tensor
    backgrounds: Tensor
    width: int
    height: int
    sh_degree: int
    scale_modifier: float
    near: float
    antialiasing: bool


Held = TypeVar("Held", Gaussians, Views)


def map_tensors(held: Held, function: Callable[[Tensor], Tensor]) -> Held:
    """Copy of Gaussians or views with each of their tensors passed through the function."""
    changed: dict[str, Any] = {n: function(t) for n, t in vars(held).items() if isinstance(t, Tensor)}
    return replace(held, **changed)


FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LARGEST = 65535  # pixels along a side of an image
MOST_PAIRS = 2**32  # of a Gaussian and a view: backends number them in 32 bits


def check_tensors(**tensors: Tensor) -> None:
    """Check that each is a dense tensor of a floating type, else TypeError, and holds data, else ValueError."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} is of type {type(tensor).__name__}, it must be a torch.Tensor.")
        if tensor.dtype not in FLOATS:
            raise TypeError(
                f"{name} is of {tensor.dtype}, it must be of float16, bfloat16, float32 or float64."
            )
        if tensor.is_nested or tensor.layout != torch.strided:
            layout = "nested" if tensor.is_nested else str(tensor.layout)
            raise TypeError(f"{name} is {layout}, it must be a dense tensor.")
        if tensor.is_meta:
            raise ValueError(f"{name} is on the meta device, where there are no numbers to render.")


def given(**tensors: Tensor | None) -> dict[str, Tensor]:
    """Tensors that are not None."""
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def check_shape(name: str, tensor: Tensor, shape: tuple[int | str, ...]) -> None:
    """Check that the tensor has this shape, in which a string stands for any size, else ValueError."""
    wanted = "[" + ", ".join(str(size) for size in shape) + "]"
    fits = tensor.dim() == len(shape) and all(
        isinstance(want, str) or size == want for size, want in zip(tensor.shape, shape)
    )
    if not fits:
        raise ValueError(f"{name} has shape {list(tensor.shape)}, it must be {wanted}.")


def check_integer(name: str, value: int, lowest: int, highest: int) -> None:
    """Check that the value is a whole number in lowest .. highest, else ValueError; True and False are none."""
    if not isinstance(value, Integral) or isinstance(value, bool) or not lowest <= value <= highest:
        raise ValueError(f"{name} is {value!r}, it must be a whole number in {lowest} .. {highest}.")


def check_number(name: str, value: float, positive: bool = False) -> None:
    """Check that the value is a finite number, and a positive one where that is needed, else ValueError."""
    try:
        fits = math.isfinite(value) and (value > 0 or not positive)
    except (TypeError, ValueError, RuntimeError):  # not a number, or a tensor of several
        fits = False
    if not fits:
        wanted = "a positive and finite number" if positive else "a finite number"
        raise ValueError(f"{name} is {value!r}, it must be {wanted}.")


def check_gaussians(gaussians: Gaussians, sh_degree: int) -> None:
    """Check that the shapes fit and exactly one of each alternative is given, else ValueError."""
    g = gaussians
    if (g.shs is None) == (g.colors is None):
        raise ValueError("Give exactly one of the two: spherical harmonics (shs) or precomputed colors.")
    if (g.scales is None) != (g.rotations is None) or (g.scales is None) == (g.covariances is None):
        raise ValueError("Give exactly one of the two: scales with rotations, or precomputed covariances.")
    check_shape("means", g.means, ("N", 3))
    n = len(g.means)
    columns: dict[str, tuple[int | str, ...]] = {
        "opacities": (),
        "scales": (3,),
        "rotations": (4,),
        "covariances": (6,),
        "colors": (3,),
        "shs": ("K", 3),
    }
    for name, shape in columns.items():
        if getattr(g, name) is not None:
            check_shape(name, getattr(g, name), (n, *shape))
    if g.shs is not None:
        check_integer("sh_degree", sh_degree, 0, 3)
        if g.shs.shape[1] < (sh_degree + 1) ** 2:
            raise ValueError(
                f"shs holds {g.shs.shape[1]} coefficients, sh_degree {sh_degree} needs {(sh_degree + 1) ** 2}."
            )
    devices = {t.device for t in vars(g).values() if t is not None}
    if len(devices) > 1:
        names = ", ".join(sorted(str(d) for d in devices))
        raise ValueError(f"The Gaussians lie on several devices ({names}), they must all be on one.")


def check_views(views: Views, means: Tensor) -> None:
    """Check that the cameras make sense, lie on the Gaussians' device and are not too many for them, else
    ValueError.
    """
    check_shape("viewmats", views.viewmats, ("V", 4, 4))
    v, n = len(views.viewmats), len(means)
    check_shape("focals", views.focals, (v, 2))
    check_shape("principals", views.principals, (v, 2))
    check_shape("background", views.backgrounds, (v, 3))
    if v == 0:
        raise ValueError("viewmats has shape [0, 4, 4], it must hold at least one view.")
    if v * n >= MOST_PAIRS:
        raise ValueError(
            f"{v} views of {n} Gaussians are {v * n} pairs in one call, they must be fewer than 2^32."
        )
    check_integer("width", views.width, 1, LARGEST)
    check_integer("height", views.height, 1, LARGEST)
    check_number("near", views.near, positive=True)
    check_number("scale_modifier", views.scale_modifier)
    if views.antialiasing not in (True, False):
        raise ValueError(f"antialiasing is {views.antialiasing!r}, it must be True or False.")
    for name in ("viewmats", "focals", "principals", "backgrounds"):
        found = getattr(views, name).device
        if found != means.device:
            raise ValueError(f"{name} is on {found}, it must be on {means.device} like the Gaussians.")
