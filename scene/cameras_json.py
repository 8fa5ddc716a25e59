"""Cameras in the file format of Inria's viewers: cameras.json and cfg_args."""

from __future__ import annotations

import json

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


def cfg_args(sh_degree: int, model_path: str, *, white_background: bool) -> str:
    """The Namespace that SIBR's viewer looks into for the degree and the background."""
    return (
        f"Namespace(sh_degree={sh_degree}, source_path='', model_path={model_path!r}, images='images', "
        f"resolution=-1, white_background={white_background}, data_device='cpu', eval=False)\n"
    )
