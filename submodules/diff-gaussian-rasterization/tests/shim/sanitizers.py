"""Run tests with AddressSanitizer and UndefinedBehaviorSanitizer on the kernels."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

from .build import run_compiler


def run_sanitized(*pytest_arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest with the variant "sanitized" as the default, in a process of its own; its output is one
    text.

    The address sanitizer's library must come first in the process, and it must find libstdc++ there when it starts, or
    it ends the process at torch's first exception.
    """
    environment = os.environ | {
        "DGR_SHIM": "sanitized",
        "LD_PRELOAD": f"{_address_sanitizer()}:{_library('libstdc++.so')}",
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    # Capture by file descriptor would swallow what a sanitizer prints as it ends the process; faulthandler would take
    # faults away from it.
    options = ["-v", "--capture=sys", "-p", "no:faulthandler", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, *pytest_arguments]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, env=environment, text=True, **output)


def _address_sanitizer() -> str:
    # clang's first: it would find g++'s as well.
    for name in (f"libclang_rt.asan-{platform.machine()}.so", "libclang_rt.asan.so", "libasan.so"):
        if path := _library(name):
            return path
    raise RuntimeError(
        "The compiler has no shared library of AddressSanitizer: install it, or set CXX to a compiler that has one."
    )


def _library(name: str) -> str:
    """The library's path, or nothing where the compiler has none."""
    path = run_compiler(f"-print-file-name={name}").strip()
    return str(Path(path).resolve()) if os.path.isabs(path) else ""
