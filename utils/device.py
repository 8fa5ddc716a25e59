"""The one place that turns a device's name into a device."""

from __future__ import annotations

import resource
import sys

import torch

HOST = torch.device("cpu")


def resolve_device(name: str | None) -> torch.device:
    """Return the torch device called `name`; None and 'auto' take the accelerator if there is one.

    Raises ValueError, in one sentence, for a name that torch does not know or a device this machine lacks.
    """
    if name is None or name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
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
    if device.index is not None and device.index >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f"device is {name!r}, but this machine's last one is 'cuda:{count - 1}'.")
    return device


def peak_memory(device: torch.device) -> float:
    """The most memory that this process has held so far on `device`, in GB (1e9 bytes)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    # Linux counts in kilobytes, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
