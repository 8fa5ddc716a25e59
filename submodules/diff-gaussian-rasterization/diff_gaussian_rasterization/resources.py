"""Needs of the CUDA kernels on every architecture: `python -m diff_gaussian_rasterization.resources
[--write]`.

Compiles them, which needs no GPU, and compares with csrc/cuda/registers.txt. Spills and stack frames (local memory) are
errors, other differences are meant or not: --write takes them over.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import kernels, nvrtc

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
RECORD = Path(__file__).with_name("csrc") / "cuda" / "registers.txt"
WRITE = "run `python -m diff_gaussian_rasterization.resources --write` if the change is meant"


@dataclass(frozen=True)
class Usage:
    """Registers of a thread, static shared memory of a block, and a thread's stack frame and spills, in bytes."""

    registers: int
    shared: int
    stack: int
    spilled: int


def parse(log: str) -> dict[str, Usage]:
    """Usage by kernel, from what `ptxas -v` prints; a function that is not inlined counts with the kernel it
    is listed under.
    """
    usages = {}
    for name, text in re.findall(
        r"Compiling entry function '(\w+)'(.*?)(?=Compiling entry|\Z)", log, re.DOTALL
    ):

        def total(pattern: str, text: str = text) -> int:
            return sum(map(int, re.findall(pattern, text)))

        usages[name] = Usage(
            registers=total(r"Used (\d+) registers"),
            shared=total(r"(\d+) bytes smem"),
            stack=total(r"(\d+) bytes stack frame"),
            spilled=total(r"(\d+) bytes spill"),
        )
    return usages


def measure(
    source: str, headers: dict[str, str], architectures: Sequence[str] = ARCHITECTURES
) -> dict[str, dict[str, Usage]]:
    """Usage by architecture and kernel."""

    def compile_one(architecture: str) -> dict[str, Usage]:
        options = (*kernels.OPTIONS, "--ptxas-options=-v")
        return parse(nvrtc.compile_image(source, "rasterizer.cu", headers, architecture, options).log)

    with ThreadPoolExecutor() as pool:
        return dict(zip(architectures, pool.map(compile_one, architectures)))


def local_memory(measured: dict[str, dict[str, Usage]]) -> list[str]:
    """A sentence for every kernel that spills or has a stack frame."""
    return [
        f"{name} for {architecture} has a stack frame of {usage.stack} bytes and spills {usage.spilled}, both must be 0."
        for architecture, usages in measured.items()
        for name, usage in usages.items()
        if usage.stack or usage.spilled
    ]


def table(measured: dict[str, dict[str, Usage]]) -> str:
    """Registers and shared memory, a line per kernel and a column per architecture."""
    rows = [["kernel", *measured]]
    for name in next(iter(measured.values())):
        cells = (usages[name] for usages in measured.values())
        rows.append([name, *(f"{usage.registers}/{usage.shared}" for usage in cells)])
    widths = [max(map(len, column)) + 2 for column in zip(*rows)]
    lines = ("".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
    return "\n".join([heading(), *lines]) + "\n"


def heading() -> str:
    """The first line of the table."""
    return "# NVRTC {}.{}: registers of a thread / bytes of static shared memory of a block".format(
        *nvrtc.version()
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help=f"write {RECORD.name}")
    options = parser.parse_args(arguments)
    measured = measure(*kernels.sources())
    faults = local_memory(measured)
    if options.write and not faults:
        RECORD.write_text(table(measured), encoding="utf-8")
    elif not RECORD.exists() or RECORD.read_text(encoding="utf-8") != table(measured):
        faults.append(f"{RECORD} differs from:\n{table(measured)}{WRITE}.")
    print("\n".join(faults) or f"No spills, no stack frames, and {RECORD.name} is right.")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
