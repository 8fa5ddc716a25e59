"""Contents of an installed wheel, with a compiler and without."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


def build_wheel(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Build pip's wheel of the project in folder/wheel, made from a copy in folder/source."""
    ignored = shutil.ignore_patterns("*.so", "build", "*.egg-info", "__pycache__")
    shutil.copytree(PROJECT, folder / "source", ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-v", "-w", "wheel", "./source"]
    return subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True)


def unpack(folder: Path) -> Path:
    """Unpack the wheel; returns where its files lie."""
    (wheel,) = (folder / "wheel").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "installed")
    return folder / "installed"


def run(installed: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a Python of its own that finds the wheel's files and no other."""
    environment = os.environ | {"PYTHONPATH": str(installed)}
    script = (
        f"import diff_gaussian_rasterization as d; assert d.__file__.startswith({str(installed)!r})\n{script}"
    )
    return subprocess.run(
        [sys.executable, "-c", script], cwd=installed, env=environment, capture_output=True, text=True
    )


def bare_machine(folder: Path, driver: Path) -> dict[str, str]:
    """The environment of a machine that has Python, this libcuda and nothing else."""
    (folder / "bin").mkdir()
    return {"PATH": str(folder / "bin"), "CXX": "", "LD_LIBRARY_PATH": str(driver.parent)}


@pytest.mark.thorough
def test_the_wheel_holds_the_sources_of_the_cuda_backend_and_no_others(tmp_path: Path) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text('#!/bin/sh\nfor last; do :; done\n: >"$last"\n')  # makes the file named after -o
    compiler.chmod(0o755)
    result = build_wheel(tmp_path, CXX=str(compiler))
    assert result.returncode == 0, result.stderr
    assert "absent from the `packages` configuration" not in result.stdout + result.stderr
    installed = unpack(tmp_path)
    result = run(
        installed,
        "from diff_gaussian_rasterization import kernels; print(kernels.kernel_names(), *kernels.sources()[1])",
    )
    assert "math.h" in result.stdout, result.stderr
    assert not list(installed.rglob("*.cpp"))


@pytest.mark.skipif(sys.platform == "darwin", reason="there is no CUDA for macOS")
@pytest.mark.thorough
def test_a_gpu_and_no_compiler_give_a_package_without_the_cpu_backend(tmp_path: Path) -> None:
    source, driver = tmp_path / "empty.c", tmp_path / "libcuda.so.1"
    source.touch()
    subprocess.run(["cc", "-shared", "-fPIC", str(source), "-o", str(driver)], check=True)
    result = build_wheel(tmp_path, **bare_machine(tmp_path, driver))
    assert result.returncode == 0, result.stderr
    installed = unpack(tmp_path)
    assert not list(installed.rglob("*.so"))
    result = run(
        installed, "from diff_gaussian_rasterization import cpu, kernels; kernels.sources(); cpu.levels()"
    )
    assert result.stderr.splitlines()[-1] == (
        "RuntimeError: The CPU backend is not built, "
        "it needs a C++17 compiler while this package is being installed."
    )


# pip builds in isolation, which takes its time.
@pytest.mark.slow
def test_no_compiler_and_no_gpu_is_an_error_that_says_so(tmp_path: Path) -> None:
    driver = tmp_path / "libcuda.so.1"
    driver.touch()  # no library, and found before a real one
    result = build_wheel(tmp_path, **bare_machine(tmp_path, driver))
    assert result.returncode != 0
    assert "No C++17 compiler found: install g++ or clang++" in result.stdout + result.stderr
