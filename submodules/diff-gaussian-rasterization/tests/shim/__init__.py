"""Run the kernels of a .cu file on the CPU, so that their logic can be tested without a GPU.

The file is compiled behind cuda_shim.h, and a block's threads run as fibers in an order that a seed permutes.
Where threads wait for one another in vain, the launch fails and names them; shared memory holds NaN until
written.
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

from .build import load, source_line
from .sanitizers import run_sanitized

__all__ = ["RASTERIZER", "VARIANT", "ShimKernels", "run_sanitized"]

RASTERIZER = Path(__file__).parents[2] / "diff_gaussian_rasterization" / "csrc" / "cuda" / "rasterizer.cu"
VARIANT = os.environ.get("DGR_SHIM", "plain")


class ShimKernels:
    """Launcher of kernels as on a CUDA device, which returns when they have run; pointers in frames are to
    CPU memory.

    Threads and blocks run in natural order with seed 0, else in one permuted by the seed. The source names its kernels in
    a macro DGR_KERNELS(X); each takes one struct by value. Variants (build.py) are "plain"; "races", which reports
    accesses that nothing orders; and "sanitized", for processes that run_sanitized has started.
    """

    def __init__(self, seed: int = 0, source: Path = RASTERIZER, variant: str = VARIANT) -> None:
        self.seed = seed
        self._library, self._path = load(source, variant)

    def launch(self, name: str, blocks: int, threads: int, frame: ctypes.Structure) -> None:
        """Run a kernel. Raises RuntimeError where a thread waits in vain, or for a race, with the threads and
        lines it is about.
        """
        size = self._library.shim_frame_size(name.encode())
        if size and size != ctypes.sizeof(frame):
            raise RuntimeError(
                f"Kernel '{name}' takes a struct of {size} bytes, {type(frame).__name__} has {ctypes.sizeof(frame)}."
            )
        message = ctypes.create_string_buffer(1024)
        failed = self._library.shim_launch(
            name.encode(), blocks, threads, ctypes.byref(frame), self.seed, message, len(message)
        )
        if failed:
            text = message.value.decode()
            raise RuntimeError(re.sub(r"\[(0x\w+)\]", lambda match: source_line(self._path, match[1]), text))
