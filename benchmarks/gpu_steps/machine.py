"""The machine as it was found, and what the steps' processes need to import."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from .step import ROOT

FIELDS = (
    *("name", "driver_version", "memory.total", "power.limit", "power.draw", "temperature.gpu", "pstate"),
    *("clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem"),
)
"""Fields of nvidia-smi, which only reads them."""
RASTERIZER = "diff_gaussian_rasterization"
PACKAGES = {
    RASTERIZER: "diff-gaussian-rasterization",
    "simple_knn": "simple-knn",
    "point_e": "point-e",
    "toybox": "toybox",
}
"""Packages of ours, and their folders under submodules/."""


def card() -> dict[str, str]:
    """The first GPU's name, driver, clocks and so on; {} without NVIDIA's tool."""
    if shutil.which("nvidia-smi") is None:
        return {}
    command = ["nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader", "--id=0"]
    done = subprocess.run(command, capture_output=True, text=True)
    values = [value.strip() for value in done.stdout.split(",")]
    return dict(zip(FIELDS, values)) if done.returncode == 0 else {}


def software() -> dict[str, str]:
    """List the versions of the commit, of Python and of the packages that decide the speed."""
    found = {"commit": _commit(), "python": platform.python_version(), "cores": str(os.cpu_count())}
    for name in ("torch", "triton", "diffusers", "transformers", "gsplat"):
        if importlib.util.find_spec(name) is not None:
            found[name] = _version(name)
    if "torch" in found:
        import torch

        found["CUDA"] = str(torch.version.cuda)
    return found


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    if shutil.which("git") is None:
        return "unknown"
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


def _version(name: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"


def environment() -> Mapping[str, str]:
    """Variables of the steps' processes: ours on the path, from the checkout where they are not installed."""
    folders = [ROOT, ROOT / "benchmarks"]
    folders += [
        ROOT / "submodules" / folder
        for package, folder in PACKAGES.items()
        if importlib.util.find_spec(package) is None
    ]
    path = [*map(str, folders), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(part for part in path if part),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HF_HUB_OFFLINE": "1",
    }


def build_rasterizer() -> str | None:
    """Build the rasterizer's CPU libraries in the checkout where neither they nor the package are installed.

    Results are compared with them. Returns a sentence if that fails.
    """
    folder = ROOT / "submodules" / PACKAGES[RASTERIZER]
    if importlib.util.find_spec(RASTERIZER) is not None or any((folder / RASTERIZER).glob("*.so")):
        return None
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
    return f"The rasterizer's CPU libraries cannot be built, so nothing is compared with them: {lines[-1]}"


def has_gpu() -> bool:
    """Return whether torch can use a GPU."""
    import torch

    return torch.cuda.is_available() and torch.version.cuda is not None


def free_of(out: Path) -> int:
    """Bytes free where the large files go."""
    out.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(out).free
