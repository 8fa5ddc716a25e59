"""Build one plain shared library per instruction set: all it needs is a C++17 compiler."""

from __future__ import annotations

import ctypes
import os
import platform
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

HERE = Path(__file__).parent
CSRC = HERE / "diff_gaussian_rasterization" / "csrc"
SOURCES = sorted(str(p.relative_to(HERE)) for p in CSRC.glob("*.cpp"))
HEADERS = sorted(str(p.relative_to(HERE)) for p in CSRC.glob("*.h"))

INSTRUCTION_SETS = {"portable": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    INSTRUCTION_SETS["avx2"] = ["-mavx2", "-mfma"]
    INSTRUCTION_SETS["avx512"] = ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mavx2", "-mfma"]

FLAGS = ["-std=c++17", "-O3", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden"]


def compiler() -> list[str]:
    """The command of the C++ compiler: CXX if set, else the first of the usual names."""
    if os.environ.get("CXX"):
        return shlex.split(os.environ["CXX"])
    for name in ("g++", "clang++", "c++"):
        if shutil.which(name):
            return [name]
    raise CompileError("No C++17 compiler found: install g++ or clang++, or set CXX to the command of yours.")


def is_for_cuda_only() -> bool:
    """Return whether there is an NVIDIA driver and no compiler: the CUDA backend, which needs no build, then
    comes alone.
    """
    try:
        compiler()
    except CompileError:
        try:
            ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        except OSError:
            return False  # building reports what is missing
        return True
    return False


class BuildLibraries(build_ext):
    """Builder of extensions that are libraries for ctypes: no Python symbol inside, and no ABI in the name."""

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split("."))) + ".so"

    def build_extensions(self) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(self.build_extension, self.extensions))

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).absolute()
        target.parent.mkdir(parents=True, exist_ok=True)
        command = [*compiler(), *FLAGS, *ext.extra_compile_args, *ext.sources, "-o", str(target)]
        try:
            subprocess.run(command, check=True, cwd=HERE)
        except OSError as error:
            raise CompileError(
                f"{command[0]} cannot be run as a C++17 compiler ({error.strerror}): set CXX."
            ) from None
        except subprocess.CalledProcessError as error:
            raise CompileError(
                f"{shlex.join(command[:-2])} ended with exit code {error.returncode}: it must be a C++17 compiler."
            ) from None


setup(
    ext_modules=[]
    if is_for_cuda_only()
    else [
        Extension(
            f"diff_gaussian_rasterization.libdgr_{name}", SOURCES, depends=HEADERS, extra_compile_args=flags
        )
        for name, flags in INSTRUCTION_SETS.items()
    ],
    cmdclass={"build_ext": BuildLibraries},
)
