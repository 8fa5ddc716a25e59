"""Pinhole cameras on orbits around the asset: random ones for training, fixed ones for tests and videos.

World: right-handed, z up, the front of the asset faces +x. The polar angle is measured from +z, the azimuth
from +x towards +y, so azimuth 0 is the front view. Camera axes are OpenCV's: x right, y down, z forward. A
normalised device coordinate lands on the pixel coordinate ((ndc + 1) S - 1) / 2 as in Inria's rasterizer:
pixel centres are whole numbers, the principal point is ((W - 1) / 2, (H - 1) / 2), and the focal length is
S / (2 tan(fov / 2)).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from config.schema import GenerateCamParams, OptimizationParams
from utils.device import HOST
from utils.rotation import look_at

PerView = Tensor | float | Sequence[float]
UP = (0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Cameras:
    """A batch of V pinhole cameras of one image size.

    viewmats [V, 4, 4] map world to camera coordinates (column vectors), focals and principals [V, 2] are in
    pixels (x, y), azimuth and polar [V] in degrees, radius [V] in world units, fovy [V] in radians. Angles
    and radius are the nominal ones: jitter of the pose does not change them.
    """

    viewmats: Tensor
    focals: Tensor
    principals: Tensor
    width: int
    height: int
    azimuth: Tensor
    polar: Tensor
    radius: Tensor
    fovy: Tensor

    def _map(self, function: Callable[[Tensor], Tensor]) -> Cameras:
        return Cameras(
            viewmats=function(self.viewmats),
            focals=function(self.focals),
            principals=function(self.principals),
            width=self.width,
            height=self.height,
            azimuth=function(self.azimuth),
            polar=function(self.polar),
            radius=function(self.radius),
            fovy=function(self.fovy),
        )

    def __len__(self) -> int:
        return self.viewmats.shape[0]

    def __getitem__(self, views: slice | Tensor | list[int]) -> Cameras:
        return self._map(lambda tensor: tensor[views])

    def to(self, device: torch.device | str) -> Cameras:
        """Move the cameras to `device`; from the host all goes in one copy, which is not waited for."""
        if self.viewmats.device != HOST or torch.device(device) == HOST:
            return self._map(lambda tensor: tensor.to(device))
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        moved: dict[str, Any] = {**in_one_copy(tensors, device)}
        return replace(self, **moved)

    def resized(self, width: int, height: int) -> Cameras:
        """Return cameras that see the same in images of another size, stretched if the sides' ratio is another."""
        scale = self.focals.new_tensor([width / self.width, height / self.height])
        # Pixel centres are whole numbers, so an image begins at -1/2.
        principals = (self.principals + 0.5) * scale - 0.5
        return replace(self, focals=self.focals * scale, principals=principals, width=width, height=height)

    @property
    def positions(self) -> Tensor:
        """Camera centres in the world, [V, 3]."""
        rotations, translations = self.viewmats[:, :3, :3], self.viewmats[:, :3, 3]
        return -(rotations.transpose(1, 2) @ translations[..., None])[..., 0]


def in_one_copy(tensors: Mapping[str, Tensor], device: torch.device | str) -> dict[str, Tensor]:
    """Copy tensors of one type, by name, into one piece of memory of `device`. The copy is not waited for."""
    packed = torch.cat([tensor.flatten() for tensor in tensors.values()]).to(device, non_blocking=True)
    parts = packed.split([tensor.numel() for tensor in tensors.values()])
    return {name: part.view(tensors[name].shape) for name, part in zip(tensors, parts)}


def wrap_degrees(angle: Tensor) -> Tensor:
    """Wrap angles to [-180, 180)."""
    return torch.remainder(angle + 180.0, 360.0) - 180.0


def orbit(
    azimuth_deg: PerView,
    polar_deg: PerView,
    radius: PerView,
    fovy_rad: PerView,
    width: int,
    height: int,
    *,
    center: Tensor | None = None,
    target: Tensor | None = None,
    up: Tensor | None = None,
    device: torch.device | str | None = None,
) -> Cameras:
    """Cameras at center + radius (sin t cos p, sin t sin p, cos t) that look at `target`.

    azimuth p and polar t in degrees, radius > 0 in world units, fovy (full vertical angle) in radians in
    (0, pi): numbers or [V], broadcast against each other. center [3] or [V, 3] is the orbit's centre
    (default: the origin), target [3] or [V, 3] the point looked at (default: the centre), up [3] or [V, 3]
    the direction that is up in the image (default: +z; looking straight along it, the image's top points
    away from the azimuth's side). All on the host; the result is float32 on `device`. Raises ValueError for
    shapes that do not broadcast, non-positive sizes or radii, and fields of view outside (0, pi).
    """
    angles = [
        torch.atleast_1d(torch.as_tensor(x, dtype=torch.float64))
        for x in (azimuth_deg, polar_deg, radius, fovy_rad)
    ]
    try:
        azimuth, polar, distance, fovy = torch.broadcast_tensors(*angles)
    except RuntimeError:
        shapes = [list(x.shape) for x in angles]
        raise ValueError(
            f"azimuth, polar, radius and fovy have shapes {shapes}, but they must broadcast to [V]."
        ) from None
    if azimuth.ndim != 1:
        raise ValueError(
            f"azimuth, polar, radius and fovy broadcast to {list(azimuth.shape)}, but they must to [V]."
        )
    if width < 1 or height < 1:
        raise ValueError(f"width and height are {width} and {height}, but they must be at least 1 pixel.")
    if not bool((distance > 0).all()):
        raise ValueError(f"radius is {float(distance.min())}, but it must be positive.")
    if not bool(((fovy > 0) & (fovy < math.pi)).all()):
        raise ValueError(
            f"fovy ranges over {float(fovy.min())} to {float(fovy.max())} rad, but it must be in (0, pi)."
        )

    t, p = torch.deg2rad(polar), torch.deg2rad(azimuth)
    direction = torch.stack([t.sin() * p.cos(), t.sin() * p.sin(), t.cos()], dim=-1)
    north = torch.stack([-t.cos() * p.cos(), -t.cos() * p.sin(), t.sin()], dim=-1)  # -d(direction)/dt
    centers = _points(center, torch.zeros_like(direction), "center")
    targets = _points(target, centers, "target")
    ups = _points(up, torch.tensor(UP, dtype=torch.float64).expand_as(direction), "up")
    focal = height / (2.0 * torch.tan(fovy / 2.0))
    principal = torch.tensor([(width - 1) / 2.0, (height - 1) / 2.0], dtype=torch.float64)
    cameras = Cameras(
        viewmats=look_at(centers + distance[:, None] * direction, targets, ups, north),
        focals=torch.stack([focal, focal], dim=-1),
        principals=principal.expand(len(azimuth), 2),
        width=width,
        height=height,
        azimuth=wrap_degrees(azimuth),
        polar=polar,
        radius=distance,
        fovy=fovy,
    )
    return cameras._map(lambda tensor: tensor.to(dtype=torch.float32, device=device).contiguous())


def _points(value: Tensor | None, default: Tensor, name: str) -> Tensor:
    """`value` as float64 [V, 3] like `default`, or `default` itself."""
    if value is None:
        return default
    points = torch.as_tensor(value, dtype=torch.float64)
    if points.shape not in ((3,), default.shape):
        raise ValueError(
            f"{name} has shape {list(points.shape)}, but it must be [3] or {list(default.shape)}."
        )
    return points.expand_as(default)


def spiral(count: int) -> tuple[Tensor, Tensor]:
    """Azimuths and polar angles [count], in degrees, evenly over the whole sphere: a Fibonacci spiral."""
    index = torch.arange(count, dtype=torch.float64)
    polar = torch.rad2deg(torch.acos(1 - (2 * index + 1) / count))
    return torch.rad2deg(index * math.pi * (3 - math.sqrt(5))), polar


@dataclass(frozen=True)
class ViewRange:
    """Ranges that training views are drawn from: radius (world units), theta and phi (degrees), fovy (radians)."""

    radius: tuple[float, float]
    theta: tuple[float, float]
    phi: tuple[float, float]
    fovy: tuple[float, float]

    @staticmethod
    def initial(params: GenerateCamParams) -> ViewRange:
        """The range before any relaxation."""
        return ViewRange(
            radius=_pair(params.radius_range),
            theta=_pair(params.theta_range),
            phi=_pair(params.phi_range),
            fovy=_pair(params.fovy_range),
        )


def _pair(values: Sequence[float]) -> tuple[float, float]:
    low, high = values
    return float(low), float(high)


def relax(
    view_range: ViewRange, params: GenerateCamParams, optimization: OptimizationParams, step: int
) -> ViewRange:
    """Return the view range after iteration `step` (from 1), relaxed once towards the max ranges if that is due.

    A relaxation is due at every multiple of `scale_up_cameras_iter` from `progressive_view_iter` on, unless
    `use_progressive` is set (the reference repositories relax when it is not). Radii shrink by
    `scale_up_factor`, the fields of view scale by the two `fovy_scale_up_factor`s, the polar angles widen by
    `phi_scale_up_factor`, and both azimuths are multiplied by it: no lower bound goes below that of its max
    range, no upper one above. As in the originals, azimuths on one side of the front move away from it, and
    the lower one may pass the upper one: views are drawn between the two all the same.
    """
    due = step >= optimization.progressive_view_iter and step % optimization.scale_up_cameras_iter == 0
    if optimization.use_progressive or not due:
        return view_range
    nearer, wider = optimization.scale_up_factor, optimization.phi_scale_up_factor
    fov_low, fov_high = optimization.fovy_scale_up_factor
    r, t, p, f = view_range.radius, view_range.theta, view_range.phi, view_range.fovy
    r_max, t_max, p_max, f_max = (
        _pair(bounds)
        for bounds in (
            params.max_radius_range,
            params.max_theta_range,
            params.max_phi_range,
            params.max_fovy_range,
        )
    )
    return ViewRange(
        radius=(max(r_max[0], r[0] * nearer), max(r_max[1], r[1] * nearer)),
        theta=(max(t_max[0], t[0] / wider), min(t_max[1], t[1] * wider)),
        phi=(max(p_max[0], p[0] * wider), min(p_max[1], p[1] * wider)),
        fovy=(max(f_max[0], f[0] * fov_low), min(f_max[1], f[1] * fov_high)),
    )


def view_range_at(params: GenerateCamParams, optimization: OptimizationParams, step: int) -> ViewRange:
    """The view range of iteration `step`, from the parameters alone: what a resumed run needs."""
    view_range = ViewRange.initial(params)
    every = optimization.scale_up_cameras_iter
    for multiple in range(every, step + 1, every):
        view_range = relax(view_range, params, optimization, multiple)
    return view_range


def _spread(bounds: tuple[float, float], count: int, gamma: float, rng: torch.Generator) -> Tensor:
    """Draw [count] values middle ± half-width · u^gamma in `bounds`: for gamma > 1 denser in the middle."""
    u = torch.rand(2, count, generator=rng, dtype=torch.float64)
    sign = torch.where(u[1] < 0.5, -1.0, 1.0)
    middle, half = (bounds[0] + bounds[1]) / 2, (bounds[1] - bounds[0]) / 2
    return middle + half * sign * u[0] ** gamma


def sample(
    camera_params: GenerateCamParams,
    view_range: ViewRange,
    num_views: int,
    rng: torch.Generator,
    device: torch.device | str | None = None,
    *,
    views_per_set: int = 1,
) -> Cameras:
    """Draw `num_views` random training cameras of image_w·SSAA × image_h·SSAA pixels on `device`.

    Radius and fovy are uniform in their ranges; polar angle and azimuth are denser in the middle of theirs for
    `rand_cam_gamma` > 1; a share `uniform_sphere_rate` of the views is uniform on the upper half-sphere
    instead. `jitter_pose` shifts positions (uniform, ± jitter_center / 2), targets and up directions (normal).
    Azimuths are stored relative to `default_azimuth`, the front. The number of draws does not depend on their
    values.

    Several views per set are a ring: one view is drawn, and the others follow evenly around the asset, at its polar
    angle, radius and field of view. The pose of a ring is not jittered. Raises ValueError if `num_views` are no whole
    sets.
    """
    params, count = camera_params, num_views // views_per_set
    if num_views % views_per_set:
        raise ValueError(
            f"num_views is {num_views}, but must be a multiple of {views_per_set}, the views of a set."
        )
    radius = _spread(view_range.radius, count, 1.0, rng)
    fovy = _spread(view_range.fovy, count, 1.0, rng)
    polar = _spread(view_range.theta, count, params.rand_cam_gamma, rng)
    azimuth = _spread(view_range.phi, count, params.rand_cam_gamma, rng)

    on_sphere, height, turn = torch.rand(3, count, generator=rng, dtype=torch.float64)
    everywhere = on_sphere < params.uniform_sphere_rate
    # Archimedes: on the unit sphere, a uniform height and a uniform turn are a uniform point.
    polar = torch.where(everywhere, torch.rad2deg(torch.acos(height)), polar)
    azimuth = torch.where(everywhere, 360.0 * turn - 180.0, azimuth)

    if views_per_set > 1:
        ring = torch.arange(views_per_set, dtype=torch.float64) * 360.0 / views_per_set
        azimuth = (azimuth[:, None] + ring).flatten()
        polar, radius, fovy = (each.repeat_interleave(views_per_set) for each in (polar, radius, fovy))

    center_noise = torch.rand(num_views, 3, generator=rng, dtype=torch.float64) - 0.5
    target_noise, up_noise = torch.randn(2, num_views, 3, generator=rng, dtype=torch.float64)
    amount = 1.0 if params.jitter_pose and views_per_set == 1 else 0.0
    cameras = orbit(
        azimuth,
        polar,
        radius,
        fovy,
        params.image_w * params.SSAA,
        params.image_h * params.SSAA,
        center=amount * params.jitter_center * center_noise,
        target=amount * params.jitter_target * target_noise,
        up=torch.tensor(UP, dtype=torch.float64) + amount * params.jitter_up * up_noise,
        device=device,
    )
    return replace(cameras, azimuth=wrap_degrees(cameras.azimuth - params.default_azimuth))


def turntable(
    params: GenerateCamParams,
    num_frames: int,
    device: torch.device | str | None = None,
    *,
    render_45: bool = False,
) -> Cameras:
    """`num_frames` views once around at `default_polar`, from the front on.

    `render_45` adds as many at two thirds of that angle, which is 30 degrees above the equator by default.
    """
    turn = 360.0 * torch.arange(num_frames, dtype=torch.float64) / num_frames
    rings = [params.default_polar, params.default_polar * 2.0 / 3.0] if render_45 else [params.default_polar]
    cameras = orbit(
        torch.cat([turn + params.default_azimuth] * len(rings)),
        torch.tensor(rings, dtype=torch.float64).repeat_interleave(num_frames),
        params.default_radius,
        params.default_fovy,
        params.image_w * params.SSAA,
        params.image_h * params.SSAA,
        device=device,
    )
    return replace(cameras, azimuth=wrap_degrees(cameras.azimuth - params.default_azimuth))


def six_views(params: GenerateCamParams, device: torch.device | str | None = None) -> Cameras:
    """The six test views: every 60 degrees around at the default polar angle, radius and field of view."""
    return turntable(params, 6, device)
