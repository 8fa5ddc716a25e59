"""Networks of a prior from its files, complete or not at all."""

from __future__ import annotations

from typing import Any

import torch

from guidance.prior.libraries import in_short, quiet_libraries
from guidance.prior.model_files import ModelFolder, PriorError, SingleFile
from guidance.prior.single_file import missing_weights


def read_networks(files: ModelFolder | SingleFile, model_key: str, dtype: torch.dtype) -> dict[str, Any]:
    """Read the networks "vae", "unet" and "text_encoder" to the host.

    Raises: PriorError, in one sentence that names `model_key`, if one cannot be read or lacks weights.
    """
    if isinstance(files, SingleFile):
        return _read_single_file(files, model_key, dtype)
    return _read_folder(files, model_key, dtype)


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
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise PriorError(
            f"model_key '{model_key}' has a {name} in {folder.path} that cannot be loaded ({reason})."
        ) from error
    if info["missing_keys"]:
        first = sorted(info["missing_keys"])[0]
        raise PriorError(
            f"model_key '{model_key}' has a {name} without {len(info['missing_keys'])} of its weights "
            f"({first}, ...) in {folder.path / weights.path}."
        )
    return loaded
