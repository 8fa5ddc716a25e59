"""CUDA kernels of the rasterizer: their source, compiled at first use for the GPU that is there, and how they
are launched.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import re
import threading
from pathlib import Path
from typing import Protocol

import torch

from . import cubin_cache, nvrtc
from .cuda_driver import Module

OPTIONS = ("--std=c++17",)  # --split-compile would be faster, but its code differs from run to run

_SOURCE = Path(__file__).with_name("csrc") / "cuda" / "rasterizer.cu"
_INCLUDE = re.compile(r'^(\s*#\s*include\s+")([^"]+)(")', re.MULTILINE)
_log = logging.getLogger(__name__)
_loading = threading.Lock()


class Kernels(Protocol):
    """Kernels of rasterizer.cu, ready to run."""

    def launch(self, name: str, blocks: int, threads: int, frame: ctypes.Structure) -> None:
        """Run kernel `name` with its one parameter, the struct `frame`, which is copied; 0 blocks are no work."""


def load_kernels(device: torch.device) -> Kernels:
    """The kernels, ready to launch on torch's current stream of a CUDA device.

    The first call on a device compiles them (seconds, once per machine: see cubin_cache) and loads them,
    which a CUDA graph cannot record. Raises RuntimeError if it does so while one is captured, or with NVRTC's
    or the driver's reason.
    """
    index = torch.cuda.current_device() if device.index is None else device.index
    with _loading:
        return _load(index)


@functools.cache
def _load(device: int) -> Kernels:
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError("The CUDA kernels are not loaded yet: rasterize once before the graph's capture.")
    return Module(_image(architecture(torch.device("cuda", device))), kernel_names(), device)


@functools.cache
def _image(target: str) -> bytes:
    source, headers = sources()

    def build() -> bytes:
        _log.info("Compiling the CUDA kernels for %s, which takes some seconds once.", target)
        return nvrtc.compile_image(source, _SOURCE.name, headers, target, OPTIONS).image

    texts = (source, *(text for pair in headers.items() for text in pair))
    return cubin_cache.fetch(target, (str(nvrtc.version()), *OPTIONS, *texts), build)


def architecture(device: torch.device) -> str:
    """The target to compile for: "sm_90" for the device itself, or for one newer than NVRTC "compute_90", the
    nearest PTX.
    """
    major, minor = torch.cuda.get_device_capability(device)
    capability, known = 10 * major + minor, nvrtc.supported_architectures()
    if capability in known:
        return f"sm_{capability}"
    older = [number for number in known if number < capability]
    if not older:
        version = "{}.{}".format(*nvrtc.version())
        raise RuntimeError(
            f"{device} has compute capability {major}.{minor}, NVRTC {version} compiles for {known[0] / 10} and newer: "
            "install a torch built for an older CUDA."
        )
    return f"compute_{older[-1]}"


def sources() -> tuple[str, dict[str, str]]:
    """Source of rasterizer.cu and, by file name, every header that it includes.

    #include lines lose their folders: NVRTC takes "math.h" and "../math.h" for two files, and includes both.
    """
    headers: dict[str, Path] = {}

    def read(path: Path) -> str:
        text = path.read_text(encoding="utf-8")
        for _, name, _ in _INCLUDE.findall(text):
            header = (path.parent / name).resolve()
            if headers.setdefault(header.name, header) != header:
                raise ValueError(f"{header} and {headers[header.name]} need different names.")
        return _INCLUDE.sub(lambda line: f"{line[1]}{Path(line[2]).name}{line[3]}", text)

    source = read(_SOURCE)
    texts: dict[str, str] = {}
    while missing := headers.keys() - texts.keys():
        texts |= {name: read(headers[name]) for name in sorted(missing)}
    return source, texts


def kernel_names() -> list[str]:
    """Names of the kernels of rasterizer.cu, as its macro DGR_KERNELS lists them."""
    source = _SOURCE.read_text(encoding="utf-8").replace("\\\n", " ")
    listed = re.search(r"^#define DGR_KERNELS\(X\)(.*)$", source, re.MULTILINE)
    assert listed is not None, "rasterizer.cu defines DGR_KERNELS(X)"
    return re.findall(r"X\((\w+)\)", listed[1])
