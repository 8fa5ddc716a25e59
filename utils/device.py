"""The one place that turns a device's name into a device."""

from __future__ import annotations

import os
import platform
import re
import resource
import sys
from pathlib import Path

import torch

HOST = torch.device("cpu")
VISIBLE = "CUDA_VISIBLE_DEVICES"
CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def resolve_device(name: str | None, index: int = 0) -> torch.device:
    """Return the torch device called `name`; None and 'auto' take the accelerator if there is one.

    Of several, where `name` gives no number, it is the one at `index`. Raises ValueError, in one sentence, for
    a name that torch does not know or a device this machine lacks.
    """
    if name is None or name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(
            f"device is {name!r}, but it must be 'auto', 'cpu', 'cuda' or 'cuda:<index>'."
        ) from None
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise ValueError(f"device is {name!r}, but only 'auto', 'cpu' and 'cuda' are supported.")
    if not torch.cuda.is_available():
        raise ValueError(f"device is {name!r}, but torch sees no such device here; use 'auto' or 'cpu'.")
    if device.index is None and index > 0:
        device = torch.device(device.type, index)
    if device.index is not None and device.index >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f"device is {name!r}, but this machine's last one is 'cuda:{count - 1}'.")
    return device


def collectives(device: torch.device) -> str:
    """The torch.distributed backend through which processes share tensors on `device`."""
    return "nccl" if device.type == "cuda" else "gloo"


def peak_memory(device: torch.device) -> float:
    """The most memory that this process has held so far on `device`, in GB (1e9 bytes)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    try:
        # Linux's rusage starts from the peak of the process that started this one; its status file does not.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(re.findall(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)[0]) * 1024 / 1e9
    except (OSError, IndexError):
        # macOS counts in bytes, others in kilobytes.
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def is_accelerator(device: torch.device) -> bool:
    """Return whether `device` is of the accelerator's type; networks may run in half precision there."""
    accelerator = torch.accelerator.current_accelerator()
    return accelerator is not None and accelerator.type == device.type


def tune(device: torch.device, *, deterministic: bool = False) -> None:
    """Set how this process's torch works on `device`: as fast as it can, or the same bytes in every run.

    To be called before anything is computed on `device`. On the host, which gives the same bytes anyway,
    nothing differs from torch's defaults. torch warns of an operation that has no deterministic version.
    """
    accelerated = is_accelerator(device)
    fixed = accelerated and deterministic
    if fixed:
        # Read once, when the first matrix product is computed.
        os.environ.setdefault(CUBLAS_WORKSPACE, ":4096:8")
    torch.use_deterministic_algorithms(fixed, warn_only=True)
    # Nothing reads memory that nobody has written, so filling it would cost a pass over every tensor and change nothing.
    torch.utils.deterministic.fill_uninitialized_memory = not fixed  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = fixed
    # Few shapes, each of them thousands of times: worth trying all algorithms for each once.
    torch.backends.cudnn.benchmark = accelerated and not fixed
    # No TF32, which has float16's ten bits: networks in half precision gain nothing by it, and what else is a float32
    # matrix product (turned cameras, split Gaussians, mixed prompts, scores) would lose digits.
    torch.set_float32_matmul_precision("highest")


def computes_bfloat16(device: torch.device) -> bool:
    """Return whether `device` computes in bfloat16 itself, not by way of float32."""
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def release_memory(device: torch.device) -> None:
    """Give back what torch holds of `device` without using it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def unreserved_memory(device: torch.device) -> int:
    """Bytes of `device` that torch holds no part of, without those that recorded graphs keep; elsewhere as
    `free_memory`."""
    release_memory(device)
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory(device)


def free_memory(device: torch.device) -> int:
    """Bytes that are left on `device`, or to this machine's processes; 2^63 - 1 where they cannot be known."""
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held
    try:
        status = Path("/proc/meminfo").read_text(encoding="ascii")
        return int(re.findall(r"^MemAvailable:\s*(\d+) kB$", status, re.MULTILINE)[0]) * 1024
    except (OSError, IndexError):
        return 2**63 - 1


def machine(device: torch.device) -> str:
    """Hardware and torch version that runs on `device` are timed on."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    processor = platform.processor() or platform.machine()
    return f"{processor}, {os.cpu_count()} cores, torch {torch.__version__}"


def accelerators() -> list[str]:
    """The names by which `see_only` knows this machine's accelerators; [] without any."""
    chosen = os.environ.get(VISIBLE, "").split(",")
    count = torch.cuda.device_count()
    return chosen[:count] if any(chosen) else [str(index) for index in range(count)]


def see_only(accelerator: str) -> None:
    """Let this process, which has not used any, see one accelerator: its device 'auto' is that one."""
    os.environ[VISIBLE] = accelerator
