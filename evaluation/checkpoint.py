"""Published .pt and .pth files as weights of our networks."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from utils.device import HOST

Network = TypeVar("Network", bound=nn.Module)


def with_weights(
    network: Network, path: Path, renamed: Callable[[Mapping[str, Tensor]], dict[str, Tensor]], what: str
) -> Network:
    """The network with a file's weights under the names that `renamed` gives them: all of them, frozen, on the host.

    Raises ValueError, one sentence that calls them `what`, if the file has others.
    """
    try:
        file = torch.load(path, map_location=HOST, weights_only=True, mmap=zipfile.is_zipfile(path))
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} cannot be read as weights of {what}.") from error
    weights = renamed(file) if isinstance(file, Mapping) else {}
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        wrong = str(error).splitlines()[1].strip().rstrip(".")
        raise ValueError(f"{path} does not hold the weights of {what} ({wrong[:200]}).") from error
    return network.eval().requires_grad_(False)
