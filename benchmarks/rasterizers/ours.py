"""This project's backends, and its twin in torch."""

from __future__ import annotations

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
    """The CPU backend as compiled for `level`, which this process uses from now on."""
    cpu.load_library(level)
    setattr(cpu, "best_level", lambda: level)  # noqa: B010, a plain assignment is not to mypy's taste
    return prepare(scene, "cpu")


def levels() -> list[str]:
    """The instruction sets that this processor has, the best one first."""
    return list(cpu.LEVELS[cpu.LEVELS.index(cpu.best_level()) :: -1])
