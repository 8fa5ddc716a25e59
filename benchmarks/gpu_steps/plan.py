"""The steps in order of worth: what each needs and how long it may take."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass

NETWORKS = ("diffusers", "transformers", "tokenizers", "safetensors", "pydantic", "yaml", "scipy", "PIL")
PROGRAM = (*NETWORKS, "plyfile", "trimesh", "tensorboard", "tqdm", "filelock", "requests")
TESTS = (*PROGRAM, "pytest", "xdist", "hypothesis")
INSTALLED_AS = {
    "yaml": "PyYAML",
    "PIL": "pillow",
    "xdist": "pytest-xdist",
}
"""Modules that pip knows under another name, and that name."""


@dataclass(frozen=True)
class Step:
    """Step of gpu.py, in processes of its own.

    Attributes:
        name: a letter and a word, for --only, files and the report.
        command: what is run; the file of its records, its folder for large files and --device follow.
        seconds: its limit.
        needs: modules that it imports.
        quiet: it measures times, and begins when no other step prepares itself.
        prepares: it starts at once, and waits at a barrier for its turn.
    """

    name: str
    title: str
    command: tuple[str, ...]
    seconds: float
    needs: tuple[str, ...] = ()
    quiet: bool = True
    prepares: bool = False

    def missing(self) -> list[str]:
        """List what this Python lacks of `needs` and torch, as pip calls it."""
        absent = [name for name in ("torch", *self.needs) if importlib.util.find_spec(name) is None]
        return [INSTALLED_AS.get(name, name) for name in absent]


def module(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"gpu_steps.{name}")


STEPS: Sequence[Step] = (
    Step("a-tests", "Tests that need a GPU", module("gpu_tests"), 150, TESTS, quiet=False),
    Step("b-toybox", "train.py on toybox", module("toybox_runs"), 240, PROGRAM, quiet=False),
    Step("c-rasterizer", "The rasterizer beside its peers", module("rasterizer"), 120),
    Step(
        "d-iteration",
        "The iteration on Stable Diffusion 2.1-base's architecture",
        module("iteration"),
        240,
        PROGRAM,
        prepares=True,
    ),
    Step("e-run", "train.py from start to resume", module("full_run"), 240, PROGRAM),
    Step("f-tools", "NVIDIA's tools on our kernels", module("tools"), 120),
)
