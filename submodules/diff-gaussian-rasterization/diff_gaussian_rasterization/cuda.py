"""CUDA backend: which kernels of csrc/cuda run on which memory. It never waits for the device.

How many (Gaussian, tile) instances a scene has is known on the device only. The list of instances gets the room that the
last call with these views needed, and a quarter more; should that not do, the kernels notice and take a slow exact path.
"""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int32, c_int64, c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor

from .function import CAMERAS, PARAMETERS, Images, Tensors, rasterize_with
from .kernels import Kernels, load_kernels
from .scene import Gaussians, Views

TILE = 16  # pixels; frame.h
RECORD_BYTES = 48
STATUS_WORDS = 3  # of 8 bytes, the first being the number of instances
MOMENT_STRIDE = 12  # floats
CAMERA_STRIDE = 16
OVERFLOW_BLOCKS = 256
FIRST_GUESS = 4  # instances per Gaussian and view


class _Frame(ctypes.Structure):
    """Structure dgr::Frame of csrc/cuda/frame.h, field by field."""

    _fields_ = (
        ("count", c_int64),
        ("capacity", c_int64),
        *(
            (name, c_int32)
            for name in ("views", "width", "height", "sh_degree", "sh_coefficients", "antialiasing")
        ),
        ("scale_modifier", c_float),
        ("near_plane", c_float),
        *((name, c_void_p) for name in (*PARAMETERS, *CAMERAS)),
        *((name, c_void_p) for name in ("rgb", "depth", "alpha", "radii", "means2d", "counts")),
        *((name, c_void_p) for name in ("records", "tile_count", "tile_start", "keys", "status")),
        *((name, c_void_p) for name in ("g_rgb", "g_depth", "g_alpha", "moments", "instance_moments")),
        *((f"g_{name}", c_void_p) for name in (*PARAMETERS, "means2d", "cameras")),
    )


@dataclass
class _State:
    """Device memory that lives from forward to backward."""

    records: Tensor
    tile_start: Tensor
    keys: Tensor
    status: Tensor


class _Room:
    """Number of instances to make room for; grows only. `status` is host memory that the device writes at its
    own time.
    """

    def __init__(self, device: torch.device) -> None:
        self.status = torch.zeros(STATUS_WORDS, dtype=torch.int64, pin_memory=device.type == "cuda")
        self.instances = 0

    def for_scene(self, count: int, views: int) -> int:
        """Room for a scene, never less than `count`: the slow path needs room for the list of any one tile."""
        seen = int(self.status[0])
        wanted = seen + seen // 4 if seen else FIRST_GUESS * count * views
        self.instances = max(self.instances, wanted)
        return max(self.instances, count, 1)


class Engine:
    """Engine of kernels on a device, which keeps how much room the scenes of each image size needed there."""

    def __init__(self, kernels: Kernels) -> None:
        self.kernels = kernels
        self.rooms: dict[tuple[torch.device, int, int, int], _Room] = {}

    def forward(self, views: Views, inputs: Tensors, images: Images) -> _State:
        v, n = images.means2d.shape[:2]
        tiles = v * -(-views.width // TILE) * -(-views.height // TILE)
        device = images.rgb.device
        room = self._room(device, v, views)
        images.counts.zero_()
        tile_count = images.counts.new_zeros(tiles)
        state = _State(
            records=images.rgb.new_empty(v * n * RECORD_BYTES, dtype=torch.uint8),
            tile_start=images.counts.new_empty(tiles + 1),
            keys=images.rgb.new_empty(room.for_scene(n, v), dtype=torch.int64),
            status=images.rgb.new_empty(STATUS_WORDS, dtype=torch.int64),
        )
        frame = _frame(views, inputs, images, state, tile_count)
        per_gaussian = -(-n // 256)
        self._launch("preprocess", per_gaussian, 256, frame)
        self._launch("scan", 1, 1024, frame)
        if torch.are_deterministic_algorithms_enabled() and not _capturing(device):
            # The slow path adds up in no particular order: one wait for the device rules it out.
            needed = int(state.status[0])
            if needed > len(state.keys):
                state.keys = state.keys.new_empty(needed)
                frame.keys, frame.capacity = state.keys.data_ptr(), needed
        self._launch("scatter", per_gaussian, 256, frame)
        self._launch("sort", tiles, 256, frame)
        self._launch("sort_long", tiles, 256, frame)
        self._launch("render", tiles, 256, frame)
        self._launch("render_overflowed", OVERFLOW_BLOCKS, 256, frame)
        room.status.copy_(state.status, non_blocking=True)
        return state

    def backward(
        self,
        state: _State,
        views: Views,
        inputs: Tensors,
        images: Images,
        upstream: Tensors,
        gradients: Tensors,
    ) -> None:
        v, n = images.means2d.shape[:2]
        tiles = len(state.tile_start) - 1
        frame = _frame(views, inputs, images, state, None)
        moments = images.rgb.new_zeros(v, n, MOMENT_STRIDE)
        frame.moments = moments.data_ptr()
        for name in ("rgb", "depth", "alpha"):
            setattr(frame, f"g_{name}", _pointer(upstream[name]))
        for name in (*PARAMETERS, "means2d"):
            setattr(frame, f"g_{name}", _pointer(gradients[name]))
        if torch.are_deterministic_algorithms_enabled():
            instance_moments = images.rgb.new_empty(len(state.keys), MOMENT_STRIDE)
            frame.instance_moments = instance_moments.data_ptr()
            self._launch("render_backward_deterministic", tiles, 256, frame)
            self._launch("gather_moments", -(-v * n // 256), 256, frame)
        else:
            self._launch("render_backward", tiles, 256, frame)
        self._launch("render_backward_overflowed", OVERFLOW_BLOCKS, 256, frame)
        colors = "colors" if inputs["shs"] is None else f"sh{views.sh_degree}"
        self._launch(f"preprocess_backward_{colors}", -(-n // 128), 128, frame)
        if any(gradients[name] is not None for name in ("viewmats", "focals", "principals")):
            shares = images.rgb.new_empty(v, -(-n // 256), CAMERA_STRIDE)
            frame.g_cameras = shares.data_ptr()
            self._launch("cameras_backward", v * shares.shape[1], 256, frame)
            _fill_cameras(gradients, shares.sum(dim=1))

    def _room(self, device: torch.device, count: int, views: Views) -> _Room:
        key = (device, count, views.width, views.height)
        if key not in self.rooms:
            self.rooms[key] = _Room(device)
        return self.rooms[key]

    def _launch(self, name: str, blocks: int, threads: int, frame: _Frame) -> None:
        if blocks:
            self.kernels.launch(name, blocks, threads, frame)


def _fill_cameras(gradients: Tensors, sums: Tensor) -> None:
    """Fill the cameras' gradients from [V, 16]: the rotation by rows, the translation, fx, fy, cx, cy."""
    viewmats, focals, principals = (gradients[name] for name in ("viewmats", "focals", "principals"))
    if viewmats is not None:
        viewmats.zero_()
        viewmats[:, :3, :3] = sums[:, :9].view(-1, 3, 3)
        viewmats[:, :3, 3] = sums[:, 9:12]
    if focals is not None:
        focals.copy_(sums[:, 12:14])
    if principals is not None:
        principals.copy_(sums[:, 14:])


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _frame(views: Views, inputs: Tensors, images: Images, state: _State, tile_count: Tensor | None) -> _Frame:
    v, n = images.means2d.shape[:2]
    shs = inputs["shs"]
    return _Frame(
        n,
        len(state.keys),
        v,
        views.width,
        views.height,
        views.sh_degree if shs is not None else 0,
        0 if shs is None else shs.shape[1],
        views.antialiasing,
        views.scale_modifier,
        views.near,
        *(_pointer(inputs[name]) for name in (*PARAMETERS, *CAMERAS)),
        *(
            _pointer(getattr(images, name))
            for name in ("rgb", "depth", "alpha", "radii", "means2d", "counts")
        ),
        *map(_pointer, (state.records, tile_count, state.tile_start, state.keys, state.status)),
    )


_engines: dict[torch.device, Engine] = {}


def rasterize(
    g: Gaussians, views: Views, anchor: Tensor, values: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute by the contract of reference.rasterize, in float32, on the current stream of the tensors'
    device.

    The gradients' last bits differ between runs, unless torch.use_deterministic_algorithms(True) is set. Can be captured
    in a CUDA graph after one call with the same sizes.
    """
    device = values.device
    engine = _engines.get(device) or _engines.setdefault(device, Engine(load_kernels(device)))
    return rasterize_with(engine, g, views, anchor, values)
