"""NVRTC, NVIDIA's run-time compiler, through ctypes: the one that torch's CUDA wheel brings, of torch's CUDA major."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_void_p
from dataclasses import dataclass
from pathlib import Path

import torch

# nvrtc.h. A program is an opaque pointer; every function but nvrtcGetErrorString returns an error code.
_PROTOTYPES = {
    "nvrtcVersion": (POINTER(c_int), POINTER(c_int)),
    "nvrtcGetNumSupportedArchs": (POINTER(c_int),),
    "nvrtcGetSupportedArchs": (POINTER(c_int),),
    "nvrtcCreateProgram": (POINTER(c_void_p), c_char_p, c_char_p, c_int, *[POINTER(c_char_p)] * 2),
    "nvrtcCompileProgram": (c_void_p, c_int, POINTER(c_char_p)),
    "nvrtcDestroyProgram": (POINTER(c_void_p),),
    **{f"nvrtcGet{what}Size": (c_void_p, POINTER(c_size_t)) for what in ("CUBIN", "PTX", "ProgramLog")},
    **{f"nvrtcGet{what}": (c_void_p, c_char_p) for what in ("CUBIN", "PTX", "ProgramLog")},
}
_MAJORS = (13, 12)  # tried in this order where torch has no CUDA of its own
_WINDOWS = os.name == "nt"


class NvrtcError(RuntimeError):
    """Error of a source that does not compile (the message holds the compiler's log), or of no NVRTC to
    compile it.
    """


@dataclass(frozen=True)
class Compiled:
    """Image that the driver loads (a cubin, or PTX with its final 0), and the compiler's log."""

    image: bytes
    log: str


def compile_image(
    source: str, name: str, headers: dict[str, str], architecture: str, options: Sequence[str] = ()
) -> Compiled:
    """The source compiled to a cubin for a GPU ("sm_90"), or to PTX that a driver translates ("compute_90").

    name: the source's, for messages; headers: by the names of the #include lines; options: NVRTC's. Raises NvrtcError.
    """
    library = _library()
    texts = [text.encode() for text in headers.values()]
    names = [header.encode() for header in headers]
    flags = [option.encode() for option in (f"--gpu-architecture={architecture}", *options)]
    program = c_void_p()
    code = library.nvrtcCreateProgram(
        byref(program), source.encode(), name.encode(), len(names), _array(texts), _array(names)
    )
    _check(library, code)
    try:
        code = library.nvrtcCompileProgram(program, len(flags), _array(flags))
        log = _output(library, "ProgramLog", program).rstrip(b"\0").decode(errors="replace")
        if code:
            version = "{}.{}".format(*_version(library))
            raise NvrtcError(f"NVRTC {version} could not compile {name} for {architecture}:\n{log.strip()}")
        return Compiled(_output(library, "CUBIN" if architecture.startswith("sm_") else "PTX", program), log)
    finally:
        library.nvrtcDestroyProgram(byref(program))


def version() -> tuple[int, int]:
    """Version of NVRTC as (major, minor)."""
    return _version(_library())


def supported_architectures() -> list[int]:
    """Compute capabilities that NVRTC compiles for, as 10 major + minor, in rising order."""
    library, count = _library(), c_int()
    _check(library, library.nvrtcGetNumSupportedArchs(byref(count)))
    found = (c_int * count.value)()
    _check(library, library.nvrtcGetSupportedArchs(found))
    return sorted(found)


@functools.cache
def _library() -> ctypes.CDLL:
    """The library NVRTC, its builtins loaded beside it: some of NVIDIA's wheels cannot find theirs by themselves."""
    majors = (int(torch.version.cuda.split(".")[0]),) if torch.version.cuda else _MAJORS
    for candidate in (path for major in majors for path in _candidates(major)):
        try:
            library = ctypes.CDLL(str(candidate))
        except OSError:
            continue
        for function, types in _PROTOTYPES.items():
            getattr(library, function).argtypes = types
        library.nvrtcGetErrorString.restype = c_char_p
        major, minor = _version(library)
        builtins = (
            f"nvrtc-builtins64_{major}{minor}.dll" if _WINDOWS else f"libnvrtc-builtins.so.{major}.{minor}"
        )
        with suppress(OSError):
            ctypes.CDLL(str(candidate.with_name(builtins)))
        return library
    package = "nvidia-cuda-nvrtc-cu12" if majors[0] == 12 else f'"nvidia-cuda-nvrtc=={majors[0]}.*"'
    raise NvrtcError(f"NVRTC of CUDA {majors[0]} is not installed: pip install {package} brings it.")


def _candidates(major: int) -> Iterator[Path]:
    """Places where NVRTC may be: loaded already, in pip's packages or in torch's, or wherever the system looks."""
    name = f"nvrtc64_{major}0_0.dll" if _WINDOWS else f"libnvrtc.so.{major}"
    with suppress(OSError):
        files = {
            line.split(maxsplit=5)[-1].strip() for line in Path("/proc/self/maps").read_text().splitlines()
        }
        yield from (Path(file) for file in sorted(files) if Path(file).name.startswith(name))
    nvidia = importlib.util.find_spec("nvidia")
    for root in (nvidia and nvidia.submodule_search_locations) or ():
        for folder in (f"cu{major}", "cuda_nvrtc"):
            yield from (Path(root, folder, part, name) for part in ("lib", "bin", "bin/x86_64"))
    yield Path(torch.__file__).parent / "lib" / name
    yield Path(name)


def _version(library: ctypes.CDLL) -> tuple[int, int]:
    major, minor = c_int(), c_int()
    _check(library, library.nvrtcVersion(byref(major), byref(minor)))
    return major.value, minor.value


def _output(library: ctypes.CDLL, what: str, program: c_void_p) -> bytes:
    size = c_size_t()
    _check(library, getattr(library, f"nvrtcGet{what}Size")(program, byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(library, getattr(library, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


def _array(strings: list[bytes]) -> ctypes.Array[c_char_p]:
    return (c_char_p * len(strings))(*strings)


def _check(library: ctypes.CDLL, code: int) -> None:
    if code:
        raise NvrtcError(f"NVRTC failed: {library.nvrtcGetErrorString(code).decode()}.")
