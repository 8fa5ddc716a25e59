"""Cameras in the file format of Inria's viewers: cameras.json and cfg_args."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scene.cameras import Cameras


def cameras_json(cameras: Cameras) -> str:
    """A list with id, img_name, width, height, position [3], rotation [3][3] (camera to world) and fx, fy in pixels."""
    rotations = cameras.viewmats[:, :3, :3].transpose(1, 2).tolist()
    entries = [
        {
            "id": index,
            "img_name": f"view_{round(azimuth) % 360:03d}",
            "width": cameras.width,
            "height": cameras.height,
            "position": position,
            "rotation": rotation,
            "fy": fy,
            "fx": fx,
        }
        for index, (azimuth, position, rotation, (fx, fy)) in enumerate(
            zip(cameras.azimuth.tolist(), cameras.positions.tolist(), rotations, cameras.focals.tolist())
        )
    ]
    return json.dumps(entries, indent=1) + "\n"


def read_cameras_json(path: Path) -> dict[str, Cameras]:
    """Read what `cameras_json` or a viewer of its kind wrote: a batch of one camera by each img_name.

    Principal points are in the middle, for the format has none. Raises OSError, and ValueError in one sentence.
    """
    try:
        return {
            str(entry["img_name"]): _camera(entry) for entry in json.loads(path.read_text(encoding="utf-8"))
        }
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(
            f"{str(path)!r} cannot be read as cameras ({type(error).__name__}: {error}): it must be a list as every run's "
            "cameras.json."
        ) from None


def _camera(entry: dict[str, Any]) -> Cameras:
    width, height = int(entry["width"]), int(entry["height"])
    position = torch.tensor(entry["position"], dtype=torch.float64).reshape(3)
    view = torch.eye(4, dtype=torch.float64)
    view[:3, :3] = torch.tensor(entry["rotation"], dtype=torch.float64).reshape(3, 3).T
    view[:3, 3] = -view[:3, :3] @ position
    x, y, z = position.tolist()
    radius = math.dist((x, y, z), (0, 0, 0))
    fx, fy = float(entry["fx"]), float(entry["fy"])

    def row(*values: float) -> Tensor:
        return torch.tensor(values, dtype=torch.float32)

    return Cameras(
        viewmats=view.float()[None],
        focals=row(fx, fy)[None],
        principals=row((width - 1) / 2, (height - 1) / 2)[None],
        width=width,
        height=height,
        azimuth=row(math.degrees(math.atan2(y, x))),
        polar=row(math.degrees(math.acos(z / radius)) if radius > 0 else 0.0),
        radius=row(radius),
        fovy=row(2 * math.atan(height / 2 / fy)),
    )


def cfg_args(sh_degree: int, model_path: str, *, white_background: bool) -> str:
    """The Namespace that SIBR's viewer looks into for the degree and the background."""
    return (
        f"Namespace(sh_degree={sh_degree}, source_path='', model_path={model_path!r}, images='images', "
        f"resolution=-1, white_background={white_background}, data_device='cpu', eval=False)\n"
    )
