"""Networks of a prior from its files, complete or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import Tensor

from guidance.prior.libraries import in_short, quiet_libraries
from guidance.prior.model_files import ModelFolder, PriorError, SingleFile
from guidance.prior.single_file import NETWORKS, missing_weights
from utils.device import HOST

if TYPE_CHECKING:
    from transformers import CLIPTokenizer


def read_networks(files: ModelFolder | SingleFile, model_key: str, dtype: torch.dtype) -> dict[str, Any]:
    """Read the networks "vae", "unet" and "text_encoder" to the host.

    Raises: PriorError, in one sentence that names `model_key`, if one cannot be read, lacks weights, or has weights
        that are not finite.
    """
    if isinstance(files, SingleFile):
        networks = _read_single_file(files, model_key, dtype)
    else:
        networks = _read_folder(files, model_key, dtype)
    for name, network in networks.items():
        _check_finite(name, network, files, model_key)
    return networks


def read_tokenizer(folder: Path, model_key: str) -> CLIPTokenizer:
    """Read the tokenizer of a folder in diffusers layout. Raises: PriorError, one sentence, if it cannot be read."""
    from transformers import CLIPTokenizer

    try:
        return CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except Exception as error:  # whatever a file makes the library run into
        raise PriorError(
            f"model_key '{model_key}' has a tokenizer in {folder} that cannot be read ({in_short(error)})."
        ) from error


def _check_finite(name: str, network: Any, files: ModelFolder | SingleFile, model_key: str) -> None:
    """Raise PriorError with file and tensor if a weight is not finite: every picture would be of it."""
    bad = [weight for weight, values in network.named_parameters() if not bool(values.isfinite().all())]
    if not bad:
        return
    stored = [
        (path, weight, values)
        for path, weight, values in _stored(name, files)
        if not bool(values.isfinite().all())
    ]
    if not stored:
        raise PriorError(
            f"model_key '{model_key}' has a {name} with {len(bad)} tensors, {bad[0]} the first, that leave the range of "
            "half precision: --fp16 false."
        )
    path, weight, values = stored[0]
    count = int((~values.isfinite()).sum())
    more = f", and so do {len(stored) - 1} more tensors" if len(stored) > 1 else ""
    raise PriorError(
        f"model_key '{model_key}' has a {name} with weights that are not finite: {weight} in {path} holds {count} of "
        f"{values.numel()}{more}; fetch or make the file again."
    )


def _stored(name: str, files: ModelFolder | SingleFile) -> Iterator[tuple[Path, str, Tensor]]:
    """A network's tensors of floating point as its files hold them: file, name and values."""
    if isinstance(files, SingleFile):
        paths, prefix = [files.path], NETWORKS[name]
    else:
        paths, prefix = [files.path / path for path in files.weight_files(name)], ""
    for path in paths:
        for weight, values in _tensors(path):
            if weight.startswith(prefix) and values.is_floating_point():
                yield path, weight, values


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    if path.suffix != ".safetensors":
        yield from torch.load(path, map_location=HOST, weights_only=True).items()
        return
    with safe_open(path, framework="pt") as tensors:
        names = tensors.keys()
        yield from ((name, tensors.get_tensor(name)) for name in names)


def _read_folder(folder: ModelFolder, model_key: str, dtype: torch.dtype) -> dict[str, Any]:
    """The networks by name."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.utils import is_accelerate_available
    from transformers import CLIPTextModel

    frugal = {"low_cpu_mem_usage": is_accelerate_available()}
    return {
        name: _load_network(network, folder, name, model_key, dtype, extra)
        for name, network, extra in (
            ("vae", AutoencoderKL, frugal),
            ("unet", UNet2DConditionModel, frugal),
            ("text_encoder", CLIPTextModel, {}),
        )
    }


def _read_single_file(file: SingleFile, model_key: str, dtype: torch.dtype) -> dict[str, Any]:
    """The networks by name, complete."""
    with quiet_libraries():
        from diffusers import StableDiffusionPipeline

        try:
            missing = missing_weights(file)
            if missing:
                raise ValueError(f"it lacks {len(missing)} of its weights, such as {missing[0]}")
            pipeline = StableDiffusionPipeline.from_single_file(
                str(file.path),
                config=str(file.base),
                torch_dtype=dtype,
                local_files_only=True,
                safety_checker=None,
                feature_extractor=None,
            )
        except Exception as error:  # the conversion raises whatever a foreign layout makes it run into
            raise PriorError(
                f"model_key '{model_key}' is no Stable Diffusion like that of {file.base} ({in_short(error)})."
            ) from error
    return {name: getattr(pipeline, name) for name in ("vae", "unet", "text_encoder")}


def _load_network(
    network: Any, folder: ModelFolder, name: str, model_key: str, dtype: torch.dtype, extra: dict[str, Any]
) -> Any:
    """Load a component from local files, complete: a weight that is not in the file must not stay random."""
    weights = folder.weights[name]
    try:
        loaded, info = network.from_pretrained(
            folder.path,
            subfolder=name,
            variant=weights.variant,
            use_safetensors=weights.safetensors,
            dtype=dtype,
            local_files_only=True,
            output_loading_info=True,
            **extra,
        )
    except Exception as error:  # whatever a configuration makes the libraries run into
        raise PriorError(
            f"model_key '{model_key}' has a {name} in {folder.path} that cannot be loaded ({in_short(error)})."
        ) from error
    if info["missing_keys"]:
        first = sorted(info["missing_keys"])[0]
        raise PriorError(
            f"model_key '{model_key}' has a {name} without {len(info['missing_keys'])} of its weights "
            f"({first}, ...) in {folder.path / weights.path}."
        )
    return loaded
