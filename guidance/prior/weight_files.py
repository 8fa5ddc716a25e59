"""Files of tensors that users bring: read without running what is in them, every number finite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from guidance.prior.libraries import in_short
from guidance.prior.model_files import PriorError
from utils.device import HOST

SUFFIXES = (".safetensors", ".bin", ".pt")
"""Suffixes of weight files. The last two are pickles, of which nothing but tensors is read (`weights_only`)."""

LONGEST_NAME = 300
TEXT_WIDTHS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL"}
"""Families of models by the numbers in a token's embedding."""


@contextmanager
def reading(key: str, path: Path) -> Iterator[None]:
    """Turn whatever reading a file raises inside into a PriorError of one sentence."""
    try:
        yield
    except PriorError:
        raise
    except Exception as error:  # damaged pickles make torch raise anything
        raise PriorError(f"{key} '{path}' cannot be read: {in_short(error)}.") from error


def contents_of(path: Path) -> dict[str, Any]:
    """Read what a file names: tensors, and from pickles also what they are kept in.

    A pickle of one tensor gives it under the file's own name.

    Raises: ValueError, part of a sentence, and whatever a damaged file makes the libraries raise.
    """
    found = _contents_of(path)
    if wrong := next((name for name in found if len(name) > LONGEST_NAME or not name.isprintable()), None):
        raise ValueError(f"its tensor {wrong[:40]!r} has a name too long or not printable")
    return found


def _contents_of(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    try:
        found = torch.load(path, map_location=HOST, weights_only=True)
    except UnpicklingError:  # torch's own words are a page, and end in how to run the program that is in it
        raise ValueError("it holds more than tensors, and only a .safetensors file is safe then") from None
    if isinstance(found, Tensor):
        return {path.stem: found}
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}, but must hold tensors by name")
    return {str(name): value for name, value in found.items()}


def names_in(path: Path) -> set[str]:
    """Return the names of a file's tensors, without reading these where its format allows.

    Raises: whatever a damaged file makes the libraries raise.
    """
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            return set(file.keys())
    try:
        found = torch.load(path, map_location=HOST, weights_only=True, mmap=True)
    except RuntimeError:  # torch's old format lets nothing be left out
        found = torch.load(path, map_location=HOST, weights_only=True)
    return {str(name) for name in found.get("state_dict", found)}


def header_of(path: Path) -> dict[str, str]:
    """Read what a .safetensors file notes about itself; nothing from other files."""
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def numbers(name: str, tensor: Tensor) -> Tensor:
    """Return a tensor in float32.

    Raises: ValueError, part of a sentence, if it holds NaN, infinite or complex numbers.
    """
    if tensor.is_complex():
        raise ValueError(f"its tensor {name} has complex numbers")
    found = tensor.detach().float()
    wrong = int((~torch.isfinite(found)).sum())
    if wrong:
        raise ValueError(f"its tensor {name} has {wrong} of {found.numel()} numbers that are NaN or infinite")
    return found
