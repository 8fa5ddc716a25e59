"""CUDA driver through ctypes: loads compiled kernels into torch's context, and launches them on torch's stream."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Iterable
from ctypes import POINTER, byref, c_char_p, c_int, c_uint, c_void_p

import torch

_LIBRARY = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"

# cuda.h, with the suffixes of its macros. Handles are opaque pointers; every function returns an error code.
_PROTOTYPES = {
    "cuInit": (c_uint,),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuCtxPushCurrent_v2": (c_void_p,),
    "cuCtxPopCurrent_v2": (POINTER(c_void_p),),
    "cuModuleLoadData": (POINTER(c_void_p), c_char_p),
    "cuModuleGetFunction": (POINTER(c_void_p), c_void_p, c_char_p),
    "cuLaunchKernel": (c_void_p, *[c_uint] * 7, c_void_p, POINTER(c_void_p), POINTER(c_void_p)),
}


class Module:
    """Kernels of one compiled image, ready to run on one device.

    image: a cubin, or PTX with its final 0; names: the kernels', each with one struct as its parameter; device: torch's
    index. The image stays loaded as long as the process lives. Raises RuntimeError with the driver's reason.
    """

    def __init__(self, image: bytes, names: Iterable[str], device: int) -> None:
        self._device = device
        self._context = _primary_context(device)
        self._kernels: dict[str, c_void_p] = {}
        driver, module = _driver(), c_void_p()
        with _Current(self._context):
            _check(driver.cuModuleLoadData(byref(module), image), "load the rasterizer's kernels")
            for name in names:
                kernel = c_void_p()
                task = f"load the kernel {name}"
                _check(driver.cuModuleGetFunction(byref(kernel), module, name.encode()), task)
                if hasattr(
                    driver, "cuFuncLoad"
                ):  # drivers since CUDA 12.4: nothing is left to load at a launch
                    _check(driver.cuFuncLoad(kernel), task)
                self._kernels[name] = kernel

    def launch(self, name: str, blocks: int, threads: int, frame: ctypes.Structure) -> None:
        """Start a kernel on torch's current stream of the device; frame is copied, 0 blocks are no work."""
        if blocks == 0:
            return
        stream = torch.cuda.current_stream(self._device).cuda_stream
        parameters = (c_void_p * 1)(ctypes.addressof(frame))
        with _Current(self._context):
            code = _driver().cuLaunchKernel(
                self._kernels[name], blocks, 1, 1, threads, 1, 1, 0, stream, parameters, None
            )
        _check(code, f"launch the kernel {name} with {blocks} blocks of {threads} threads")


class _Current:
    """The thread's current context while inside: autograd's threads may have none, or another device's."""

    def __init__(self, context: c_void_p) -> None:
        self._context = context

    def __enter__(self) -> None:
        _check(_driver().cuCtxPushCurrent_v2(self._context), "use the device's context")

    def __exit__(self, *raised: object) -> None:
        _driver().cuCtxPopCurrent_v2(byref(c_void_p()))


@functools.cache
def _driver() -> ctypes.CDLL:
    library = ctypes.CDLL(_LIBRARY)
    for function, types in _PROTOTYPES.items():
        getattr(library, function).argtypes = types
    return library


def _primary_context(device: int) -> c_void_p:
    """The context that torch, like everything on CUDA's runtime, works in."""
    driver, number, context = _driver(), c_int(), c_void_p()
    _check(driver.cuInit(0), "start the driver")
    _check(driver.cuDeviceGet(byref(number), device), f"find device {device}")
    _check(driver.cuDevicePrimaryCtxRetain(byref(context), number), f"open device {device}")
    return context


def _check(code: int, task: str) -> None:
    if code:
        name, description = c_char_p(), c_char_p()
        _driver().cuGetErrorName(code, byref(name))
        _driver().cuGetErrorString(code, byref(description))
        reason = f"{(name.value or b'error').decode()} {code}, {(description.value or b'unknown').decode()}"
        raise RuntimeError(f"CUDA could not {task}: {reason}.")
