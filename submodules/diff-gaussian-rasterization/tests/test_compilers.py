"""Build every instruction set with every compiler at hand, without a warning, also for systems that are not
this one.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

PACKAGE = Path(__file__).parents[1]
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
OTHER_SYSTEMS = [
    pytest.param(system, marks=pytest.mark.thorough)
    for system in ("aarch64-macos", "aarch64-linux-gnu", "x86_64-linux-musl", "x86_64-macos")
]


def _compilers() -> list[str]:
    """Commands of g++, clang++ and those with a version behind their name, from everywhere in PATH: one for each program."""
    folders = [Path(folder) for folder in os.get_exec_path() if Path(folder).is_dir()]
    found = sorted(p for folder in folders for p in folder.iterdir())
    named = {p.resolve(): p.name for p in found if re.fullmatch(r"(g|clang)\+\+(-\d+)?", p.name)}
    return sorted(named.values())


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    """Names that setup.py defines."""
    with mock.patch("setuptools.setup"):
        return runpy.run_path(str(PACKAGE / "setup.py"))


def _run(command: list[str], folder: Path) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-4000:]


@pytest.mark.thorough
@pytest.mark.parametrize("compiler", _compilers())
def test_builds_without_a_warning(compiler: str, recipe: dict[str, Any], tmp_path: Path) -> None:
    for level, flags in recipe["INSTRUCTION_SETS"].items():
        target = str(tmp_path / level)
        _run([compiler, *recipe["FLAGS"], *flags, *WARNINGS, *recipe["SOURCES"], "-o", target], PACKAGE)


@pytest.mark.skipif(not importlib.util.find_spec("ziglang"), reason="ziglang brings the compiler for them")
@pytest.mark.parametrize("system", OTHER_SYSTEMS)
def test_compiles_for_other_systems(system: str, tmp_path: Path) -> None:
    """Sources compile alone: linking would first build a C++ standard library for the system, which takes minutes."""
    machine = "x86_64" if system.startswith("x86_64") else "arm64"
    with mock.patch("setuptools.setup"), mock.patch.object(platform, "machine", return_value=machine):
        recipe = runpy.run_path(str(PACKAGE / "setup.py"))
    assert len(recipe["INSTRUCTION_SETS"]) == (3 if machine == "x86_64" else 1)
    compiler = [sys.executable, "-m", "ziglang", "c++", "-target", system, "-c"]
    flags = [flag for flag in recipe["FLAGS"] if flag != "-shared"]
    sources = [str(PACKAGE / source) for source in recipe["SOURCES"]]
    for instructions in recipe["INSTRUCTION_SETS"].values():
        _run([*compiler, *flags, *instructions, *WARNINGS, *sources], tmp_path)
