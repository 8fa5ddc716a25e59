"""Run setup.py with a compiler that only takes notes: which calls it gets, and what is printed when it cannot."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
INTEL = platform.machine().lower() in ("x86_64", "amd64")
LEVELS = ["avx2", "avx512", "portable"] if INTEL else ["portable"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    ignored = shutil.ignore_patterns("*.so", "build", "*.egg-info", "__pycache__")
    return Path(shutil.copytree(PROJECT, tmp_path / "source", ignore=ignored))


@pytest.fixture
def compiler(tmp_path: Path) -> Path:
    """A compiler that writes its arguments into notes/, one file a call, and makes the file that the call names."""
    (tmp_path / "notes").mkdir()
    script = tmp_path / "compiler"
    script.write_text(
        "#!/bin/sh\n"
        f'printf "%s\\n" "$@" > {tmp_path}/notes/$$\n'
        'for last; do case "$last" in *.cpp) test -f "$last" || exit 3;; esac; done\n'
        ': > "$last"\n'
    )
    script.chmod(0o755)
    return script


def _setup(source: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "setup.py", "-q", *command],
        cwd=source,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


def _notes(compiler: Path) -> list[list[str]]:
    return [note.read_text().splitlines() for note in (compiler.parent / "notes").iterdir()]


def test_each_instruction_set_is_a_library_of_all_sources(source: Path, compiler: Path) -> None:
    result = _setup(source, "build_ext", "--inplace", CXX=f"{compiler} --extra 'of CXX'")
    assert result.returncode == 0, result.stderr
    assert sorted(p.name for p in (source / "diff_gaussian_rasterization").glob("*.so")) == [
        f"libdgr_{level}.so" for level in LEVELS
    ]
    written = sorted(
        str(p.relative_to(source)) for p in source.glob("diff_gaussian_rasterization/csrc/*.cpp")
    )
    for arguments in _notes(compiler):
        assert arguments[:2] == ["--extra", "of CXX"]
        assert sorted(a for a in arguments if a.endswith(".cpp")) == written
        assert not any(a.startswith(("-march", "-mtune", "-mcpu", "-ffast-math")) for a in arguments)
        assert any(a.startswith("-mavx") for a in arguments) == ("portable" not in arguments[-1])


def test_building_again_compiles_again(source: Path, compiler: Path) -> None:
    """Dates do not decide that a library still fits headers, flags and compiler."""
    for times in (1, 2):
        assert _setup(source, "build_ext", "--inplace", CXX=str(compiler)).returncode == 0
        assert len(_notes(compiler)) == times * len(LEVELS)


def test_a_compiler_that_is_not_there_is_named(source: Path) -> None:
    result = _setup(source, "build_ext", "--inplace", CXX="no-such-compiler -O2")
    assert result.returncode != 0
    assert result.stderr.splitlines()[-1].startswith(
        "error: no-such-compiler cannot be run as a C++17 compiler"
    )


def test_a_compiler_that_fails_is_named_with_its_arguments(source: Path) -> None:
    result = _setup(source, "build_ext", "--inplace", CXX="false")
    assert result.returncode != 0
    assert result.stderr.splitlines()[-1].startswith("error: false -std=c++17 ")
    assert result.stderr.splitlines()[-1].endswith("ended with exit code 1: it must be a C++17 compiler.")


def test_a_source_distribution_can_be_built_and_tested(source: Path, compiler: Path, tmp_path: Path) -> None:
    result = _setup(source, "sdist", "-d", str(tmp_path / "dist"))
    assert result.returncode == 0, result.stderr
    (archive,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    for folder in ("diff_gaussian_rasterization", "tests"):
        inside = [p for p in (source / folder).rglob("*") if p.is_file()]
        missing = [p.name for p in inside if not (unpacked / p.relative_to(source)).is_file()]
        assert not missing
    assert _setup(unpacked, "build_ext", "--inplace", CXX=str(compiler)).returncode == 0
    assert len(_notes(compiler)) == len(LEVELS)
