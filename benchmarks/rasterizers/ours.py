"""Run this project's backends, and its twin in torch."""

from __future__ import annotations

import os

from diff_gaussian_rasterization import cpu, rasterize

from .peer import Images, Render
from .scene import Scene


def prepare(scene: Scene, backend: str) -> Render:
    """The forward by `backend`, as rasterize takes it."""

    def render() -> Images:
        out = rasterize(**scene.gaussians, **scene.cameras, backend=backend)
        return out.rgb, out.depth, out.alpha

    return render


def prepare_level(scene: Scene, level: str) -> Render:
    """The forward by the CPU backend as compiled for `level`, which this process names from each call on."""
    render = prepare(scene, "cpu")

    def at_level() -> Images:
        os.environ[cpu.CHOICE] = level
        return render()

    return at_level
