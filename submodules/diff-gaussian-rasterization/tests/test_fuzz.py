"""Run the CPU backend under sanitizers, with thousands of scenes that no training would make: fuzz/fuzz.cpp
drives and checks.
"""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from diff_gaussian_rasterization import cpu

PACKAGE = Path(__file__).parents[1]
LEVELS = cpu.levels()
SANITIZERS = {"memory": "address,undefined,float-cast-overflow", "threads": "thread"}
OPTIONS = {  # what is allocated is filled with NaN, so that reading it before it is written changes what comes out
    "ASAN_OPTIONS": "max_malloc_fill_size=1000000000:malloc_fill_byte=255",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("g++"), reason="needs g++ and its sanitizers, on Linux"
)


def _build(recipe: dict[str, Any], level: str, sanitizer: str, folder: Path) -> Path:
    binary = folder / f"{sanitizer}-{level}"
    flags = [f for f in recipe["FLAGS"] if f not in ("-O3", "-shared")] + recipe["INSTRUCTION_SETS"][level]
    flags += ["-O0", "-g1", f"-fsanitize={SANITIZERS[sanitizer]}", "-fno-sanitize-recover=all"]
    flags += ["-D_GLIBCXX_ASSERTIONS", "-Wall", "-Wextra", "-iquote", str(recipe["CSRC"])]
    sources = ["tests/fuzz/fuzz.cpp", *recipe["SOURCES"]]
    subprocess.run(["g++", *flags, *sources, "-ldl", "-o", str(binary)], check=True, cwd=PACKAGE)
    return binary


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Compile the driver with a sanitizer for some instruction sets, side by side, each once."""
    folder = tmp_path_factory.mktemp("fuzz")
    with mock.patch("setuptools.setup"):
        recipe = runpy.run_path(str(PACKAGE / "setup.py"))
    built: dict[tuple[str, str], Path] = {}

    def binaries(sanitizer: str, levels: tuple[str, ...]) -> list[Path]:
        missing = [level for level in levels if (sanitizer, level) not in built]
        with ThreadPoolExecutor() as pool:
            paths = pool.map(lambda level: _build(recipe, level, sanitizer, folder), missing)
            built.update({(sanitizer, level): path for level, path in zip(missing, paths)})
        return [built[sanitizer, level] for level in levels]

    return binaries


def _run(binaries: list[Path], mode: str, seeds: range, parts: int = 1) -> None:
    """Run each binary on all seeds; fail with what it wrote to stderr."""
    # Sanitizers place their shadow memory at fixed addresses, which a randomised layout may have taken.
    fixed = (
        ["setarch", "-R"] if subprocess.run(["setarch", "-R", "true"], check=False).returncode == 0 else []
    )
    step = -(-len(seeds) // parts)
    jobs = [
        [*fixed, str(binary), mode, str(first), str(min(first + step, seeds.stop))]
        for first in seeds[::step]
        for binary in binaries
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = pool.map(
            lambda job: subprocess.run(
                job, check=False, capture_output=True, text=True, env={**os.environ, **OPTIONS}
            ),
            jobs,
        )
        for job, run in zip(jobs, runs):
            assert run.returncode == 0, f"{Path(job[-4]).name}: {run.stderr[-4000:]}"


@pytest.mark.slow
def test_some_scenes(build: Any) -> None:
    _run(build("memory", tuple({LEVELS[0], LEVELS[-1]})), "scenes", range(30))


@pytest.mark.thorough
def test_refused_memory_and_threads(build: Any) -> None:
    """Refuse each request in turn: the result is an error code or the same images, and a workspace that still
    works.
    """
    _run(build("memory", LEVELS[-1:]), "scarcity", range(4))


@pytest.mark.thorough
def test_ten_thousand_scenes(build: Any) -> None:
    _run(build("memory", LEVELS), "scenes", range(10_000), parts=4)


@pytest.mark.thorough
def test_threads_do_not_race(build: Any) -> None:
    _run(build("threads", LEVELS[-1:]), "scenes", range(20))


@pytest.mark.thorough
def test_threads_do_not_race_in_many_scenes(build: Any) -> None:
    _run(build("threads", LEVELS[-1:]), "scenes", range(2000))
