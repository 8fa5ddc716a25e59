"""Hardware that the figures of a benchmark depend on."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import torch


def hardware(device: str, threads: int) -> dict[str, str]:
    """Hardware and settings by name, for a benchmark that runs on "cpu" or "cuda"."""
    found = {"processor": processor(), "threads": str(threads), "python": platform.python_version()}
    found["torch"] = torch.__version__
    if device == "cuda":
        found["GPU"] = torch.cuda.get_device_name()
        found["CUDA"] = str(torch.version.cuda)
        found["driver"] = driver()
    return found


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def driver() -> str:
    """The version of NVIDIA's driver, "unknown" without its tool."""
    if shutil.which("nvidia-smi") is None:
        return "unknown"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True).stdout.split("\n")[0]
