"""Checkpoints: tensors by name from a file that may hold anything, and a model with exactly these."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from point_e.errors import PointEError, reason_of
from point_e.models import BASE_MODELS, UPSAMPLER, StageConfig
from point_e.transformer import PointTransformer


def load_model(path: Path, stage: StageConfig, device: torch.device) -> PointTransformer:
    """The stage's model with the parameters in `path`, float32, frozen.

    The tensors of the file become the parameters, so that none is held twice. Raises PointEError as `read_tensors`
    does, and for names, shapes or values that do not fit.
    """
    tensors = read_tensors(path)
    model = skeleton(stage)
    _check_fit(path, tensors, model)
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise PointEError(f"{str(path)!r} holds {name} as {tensor.dtype}, but it must be floating point.")
        if not bool(torch.isfinite(tensor).all()):
            raise PointEError(f"{str(path)!r} holds values in {name} that are not finite.")
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    return model.to(device).eval().requires_grad_(False)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a file of torch.save, on the host; no code in it is ever run.

    They are read from disk where they are first used. Raises PointEError for a file that is missing, empty, cut off or
    something else than a dictionary of tensors.
    """
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise PointEError(f"the checkpoint {str(path)!r} cannot be read: {reason_of(error)}.") from error
    if problem := _not_a_checkpoint(head):
        raise PointEError(f"{str(path)!r} is {problem}, not a checkpoint; remove it and download it again.")
    try:
        tensors = _read(path)
    except pickle.UnpicklingError as error:
        raise PointEError(
            f"{str(path)!r} holds more than tensors or is damaged, and code in it is not run; "
            f"a checkpoint must be a dictionary of tensors."
        ) from error
    except Exception as error:  # What parsers raise for arbitrary bytes has no common class.
        raise PointEError(
            f"{str(path)!r} cannot be read as a checkpoint, for it is damaged, cut off or of another kind "
            f"({reason_of(error)})."
        ) from error
    if not isinstance(tensors, dict) or not tensors or not all(map(_is_entry, *zip(*tensors.items()))):
        raise PointEError(f"{str(path)!r} must hold a dictionary of tensors by their names, but it does not.")
    return tensors


def skeleton(stage: StageConfig) -> PointTransformer:
    """The stage's model without memory for its parameters."""
    with torch.device("meta"):
        return PointTransformer(stage)


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    # torch's older format, which is no zip archive, cannot be mapped.
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def _is_entry(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def _not_a_checkpoint(head: bytes) -> str | None:
    """Name what a file is instead, by its first bytes, where that is clear."""
    if not head:
        return "empty"
    if head.lstrip().startswith(b"<"):
        return "a web page"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, which only names the file"
    return None


def _check_fit(path: Path, tensors: dict[str, Tensor], model: PointTransformer) -> None:
    """Check that names and shapes are the model's, else PointEError."""
    wanted, found = _shapes(model.state_dict()), _shapes(tensors)
    if wanted == found:
        return
    problems = [f"lacks {name}" for name in wanted if name not in found]
    problems += [f"has {name}, which is unknown" for name in found if name not in wanted]
    problems += [
        f"has {name} of shape {list(found[name])} instead of {list(shape)}"
        for name, shape in wanted.items()
        if found.get(name, shape) != shape
    ]
    more = f" and {len(problems) - 1} more such" if len(problems) > 1 else ""
    published = {**BASE_MODELS, "upsample": UPSAMPLER}
    fits = [name for name, other in published.items() if found == _shapes(skeleton(other.stage).state_dict())]
    hint = f"; it fits {' and '.join(fits)}" if fits else ""
    raise PointEError(f"{str(path)!r} does not fit the model: it {problems[0]}{more}{hint}.")


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
