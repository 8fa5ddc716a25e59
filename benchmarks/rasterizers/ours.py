"""This project's backends, and its twin in torch."""

from __future__ import annotations

from unittest.mock import patch

from diff_gaussian_rasterization import cpu, rasterize

from .peer import Images, Render
from .scene import Scene


def prepare(scene: Scene, backend: str) -> Render:
    """`backend` as rasterize takes it."""

    def render() -> Images:
        out = rasterize(**scene.gaussians, **scene.cameras, backend=backend)
        return out.rgb, out.depth, out.alpha

    return render


def prepare_level(scene: Scene, level: str) -> Render:
    """The CPU backend as compiled for `level`."""
    cpu.load_library(level)
    render = prepare(scene, "cpu")

    def at_level() -> Images:
        with patch.object(cpu, "best_level", lambda: level):
            return render()

    return at_level


def levels() -> list[str]:
    """The instruction sets that this processor has, the best one first."""
    return list(cpu.LEVELS[cpu.LEVELS.index(cpu.best_level()) :: -1])
