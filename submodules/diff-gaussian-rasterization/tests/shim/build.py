"""Compile the shim with the kernels of one source, once per process and variant."""

from __future__ import annotations

import ctypes
import functools
import os
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Variant:
    """Compiler flags: of the kernels, of the code that runs them, of the linker."""

    kernels: list[str]
    runtime: list[str]
    link: list[str] = field(default_factory=list)


FLAGS = ["-std=c++17", "-fPIC", "-fvisibility=hidden"]
SANITIZERS = "-fsanitize=address,undefined,float-cast-overflow"
VARIANTS = {
    "plain": Variant(["-O2"], ["-O2"]),
    "ucontext": Variant(["-O2"], ["-O2", "-DSHIM_UCONTEXT"]),
    "sanitized": Variant(
        ["-O1", "-g", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all", SANITIZERS],
        ["-O2", "-g", "-DSHIM_ASAN"],
        [SANITIZERS],
    ),
    # races.cpp takes the place of the thread sanitizer's runtime, hence nothing for the linker.
    "races": Variant(
        ["-O1", "-gdwarf-4", "-fsanitize=thread", "-DSHIM_RACES"], ["-O2", "-DSHIM_RACES"], ["-ldl"]
    ),
}


@functools.cache
def load(source: Path, variant: str) -> tuple[ctypes.CDLL, Path]:
    """The library with the source's kernels, and its path."""
    flags = list(VARIANTS[variant].kernels)
    if variant == "sanitized" and not is_clang():
        flags.append("-fsanitize-sections=shim_shared")  # clang cannot guard the variables of a named section
    kernels = _compile("shim.cpp", *flags, f'-DSHIM_SOURCE="{source.resolve()}"')
    path = _new_file(".so")
    run_compiler("-shared", kernels, *_runtime(variant), *VARIANTS[variant].link, "-o", str(path))
    library = ctypes.CDLL(str(path))
    text, number, pointer, size = ctypes.c_char_p, ctypes.c_uint, ctypes.c_void_p, ctypes.c_size_t
    library.shim_launch.argtypes = [text, number, number, pointer, ctypes.c_uint64, text, size]
    library.shim_frame_size.argtypes = [text]
    library.shim_frame_size.restype = ctypes.c_uint64
    return library, path


@functools.cache
def _runtime(variant: str) -> list[str]:
    sources = ["fiber.cpp", "scheduler.cpp"] + ["races.cpp"] * (variant == "races")
    return [_compile(source, *VARIANTS[variant].runtime) for source in sources]


def _compile(source: str, *flags: str) -> str:
    target = str(_new_file(".o"))
    run_compiler(*FLAGS, *flags, "-c", str(HERE / source), "-o", target)
    return target


@functools.cache
def _directory() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="dgr-shim-")  # removed when this process ends


def _new_file(suffix: str) -> Path:
    handle, name = tempfile.mkstemp(suffix, dir=_directory().name)
    os.close(handle)
    return Path(name)


@functools.cache
def is_clang() -> bool:
    return "__clang__" in run_compiler("-dM", "-E", "-x", "c++", os.devnull)


def run_compiler(*arguments: str) -> str:
    """Run $CXX, else g++, with these arguments, and return what it prints. Raises RuntimeError with its errors."""
    return _run([*shlex.split(os.environ.get("CXX") or "g++"), *arguments])


def source_line(library: Path, offset: str) -> str:
    """The place in the source, such as (rasterizer.cu:120), of an instruction at this offset in the library."""
    if not shutil.which("addr2line"):
        return f"({library}+{offset})"
    place = _run(["addr2line", "-e", str(library), offset]).split()[0]
    return f"({Path(place).name})"


def _run(command: list[str]) -> str:
    # A sanitizer that is preloaded into this process is not meant for the compiler.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} failed:\n{done.stderr}")
    return done.stdout
