"""What every backend is given: the parameters of the Gaussians and the cameras, checked once."""

from __future__ import annotations

from dataclasses import dataclass

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


def _expect(name: str, tensor: Tensor, shape: tuple[int | str, ...]) -> None:
    wanted = "[" + ", ".join(str(size) for size in shape) + "]"
    fits = tensor.dim() == len(shape) and all(
        isinstance(want, str) or size == want for size, want in zip(tensor.shape, shape)
    )
    if not fits:
        raise ValueError(f"{name} has shape {list(tensor.shape)}, it must be {wanted}.")


def check_gaussians(gaussians: Gaussians, sh_degree: int) -> None:
    """Raises ValueError unless the shapes fit and exactly one of each alternative is given."""
    g = gaussians
    if (g.shs is None) == (g.colors is None):
        raise ValueError("Give exactly one of the two: spherical harmonics (shs) or precomputed colors.")
    if (g.scales is None) != (g.rotations is None) or (g.scales is None) == (g.covariances is None):
        raise ValueError("Give exactly one of the two: scales with rotations, or precomputed covariances.")
    n = g.means.shape[0] if g.means.dim() else 0
    _expect("means", g.means, (n, 3))
    _expect("opacities", g.opacities, (n,))
    if g.scales is not None and g.rotations is not None:
        _expect("scales", g.scales, (n, 3))
        _expect("rotations", g.rotations, (n, 4))
    if g.covariances is not None:
        _expect("covariances", g.covariances, (n, 6))
    if g.colors is not None:
        _expect("colors", g.colors, (n, 3))
    if g.shs is not None:
        _expect("shs", g.shs, (n, "K", 3))
        if not 0 <= sh_degree <= 3:
            raise ValueError(f"sh_degree is {sh_degree}, it must be 0, 1, 2 or 3.")
        if g.shs.shape[1] < (sh_degree + 1) ** 2:
            raise ValueError(
                f"shs holds {g.shs.shape[1]} coefficients, sh_degree {sh_degree} needs {(sh_degree + 1) ** 2}."
            )
    devices = {t.device for t in vars(g).values() if t is not None}
    if len(devices) > 1:
        names = ", ".join(sorted(str(d) for d in devices))
        raise ValueError(f"The Gaussians lie on several devices ({names}), they must all be on one.")


def check_views(views: Views, device: torch.device) -> None:
    """Raises ValueError unless the cameras make sense and lie on `device`."""
    n = views.viewmats.shape[0] if views.viewmats.dim() else 0
    _expect("viewmats", views.viewmats, (n, 4, 4))
    _expect("focals", views.focals, (n, 2))
    _expect("principals", views.principals, (n, 2))
    _expect("background", views.backgrounds, (n, 3))
    if n == 0:
        raise ValueError("viewmats has shape [0, 4, 4], it must hold at least one view.")
    for name, size in (("width", views.width), ("height", views.height)):
        if not 0 < size < 65536:
            raise ValueError(f"{name} is {size}, it must lie in 1 .. 65535.")
    if not views.near > 0:
        raise ValueError(f"near is {views.near}, it must be positive.")
    for name in ("viewmats", "focals", "principals", "backgrounds"):
        found = getattr(views, name).device
        if found != device:
            raise ValueError(f"{name} is on {found}, it must be on {device} like the Gaussians.")
