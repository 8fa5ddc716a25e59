"""ControlNets (Zhang et al., 2023) beside a U-Net of Stable Diffusion: each is shown a picture, and adds to what the U-Net keeps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from guidance.prior.libraries import in_short
from guidance.prior.model_files import PriorError
from guidance.prior.network_files import NetworkFiles, check_finite, find_network, read_network
from guidance.prior.weight_files import contents_of, reading

WAYS_OUT = "each of controlnet_model_key is a folder in diffusers layout, a hub id or a .safetensors file"
MUST_FIT = "cross_attention_dim", "in_channels", "block_out_channels", "layers_per_block"
"""Settings of a ControlNet that are those of its U-Net."""
TAKES_PICTURE = r"controlnet_cond_embedding\.blocks\.\d+\.weight"
"""Weights between the first and the last of the layers that take the picture; every second one makes it smaller."""
WHOSE = {768: " (Stable Diffusion 1)", 1024: " (Stable Diffusion 2)", 2048: " (Stable Diffusion XL)"}


@dataclass(frozen=True)
class Controls:
    """ControlNets that a prior is to have.

    Attributes:
        files: of each.
        scales: factor on what each adds.
        t_range: lowest and highest time at which they act, as fractions of T.
    """

    files: tuple[NetworkFiles, ...]
    scales: tuple[float, ...]
    t_range: tuple[float, float] = (0.0, 1.0)

    def all_files(self) -> Mapping[str, Path]:
        """Return the files that a run depends on, by what they are."""
        return {
            what: path
            for index, files in enumerate(self.files)
            for what, path in files.files(f"controlnet {index}").items()
        }

    def read(self, unet: Any, shrinks_by: int, dtype: torch.dtype) -> ControlNets:
        """Read them to the host for a U-Net whose latents are smaller than images by a factor.

        Raises: PriorError, in one sentence, if one cannot be read or belongs to another U-Net.
        """
        nets = [_read(files, unet, shrinks_by, dtype) for files in self.files]
        return ControlNets(nets, self.scales, self.t_range)


def find_controls(
    keys: Sequence[str], scales: Sequence[float], t_range: tuple[float, float]
) -> Controls | None:
    """Find the ControlNets that `controlnet_model_key` names; None for no keys.

    Raises: PriorError, in one sentence, if one is nowhere or incomplete.
    """
    if not keys:
        return None
    files = tuple(find_network("controlnet_model_key", key, WAYS_OUT) for key in keys)
    return Controls(files, tuple(scales), t_range)


class ControlNets(nn.Module):
    """Several ControlNets, whose additions to one U-Net are summed.

    Args:
        nets: diffusers' ControlNetModel, at least one.
        scales, t_range: see `Controls`.
    """

    def __init__(self, nets: Sequence[Any], scales: Sequence[float], t_range: tuple[float, float]) -> None:
        super().__init__()
        self.nets, self.scales, self.t_range = nn.ModuleList(nets), tuple(scales), t_range
        for net in nets:
            # As for the U-Net: of no effect but where it is differentiated.
            net.enable_gradient_checkpointing()

    def __len__(self) -> int:
        return len(self.nets)

    def act_at(self, t: Tensor, num_timesteps: int) -> Tensor:
        """Return for which of timesteps t [B] (host) they act, bool [B]."""
        low, high = self.t_range
        return (t >= low * num_timesteps) & (t <= high * num_timesteps)

    def forward(self, z: Tensor, told: Tensor, text: Tensor, pictures: Tensor) -> dict[str, Any]:
        """Return what is added to the U-Net's skip connections and middle, by the names of its arguments.

        Args:
            z: latents [B, C, h, w].
            told: the times that the U-Net is told, [B].
            text: texts [B, L, D].
            pictures: [B, n, 3, H, W] in [0, 1], one for each net.
        """
        down: tuple[Tensor, ...] = ()
        middle: Tensor | None = None
        for net, scale, picture in zip(self.nets, self.scales, pictures.unbind(1)):
            more, last = net(z, told, text, picture, scale, return_dict=False)
            down = tuple(map(torch.add, down, more)) if down else tuple(more)
            middle = last if middle is None else middle + last
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}


def _read(files: NetworkFiles, unet: Any, shrinks_by: int, dtype: torch.dtype) -> Any:
    from diffusers import ControlNetModel

    named = f"controlnet_model_key '{files.key}'"
    with reading("controlnet_model_key", files.path):
        if files.path.is_file():
            net = _of_file(files.path, unet)
        else:
            net = read_network(ControlNetModel, files.path)
    config = net.config
    for name in MUST_FIT:
        own, wanted = (_plain(each.config[name]) for each in (net, unet))
        if own != wanted:
            raise PriorError(
                f"{named} is made for another U-Net than the prior's: its {name} is {own}{_whose(own)}, and that of the prior "
                f"{wanted}{_whose(wanted)}."
            )
    if config.conditioning_channels != 3 or config.global_pool_conditions:
        raise PriorError(
            f"{named} takes no picture of a shape: it has {config.conditioning_channels} channels of condition"
            f"{', which it pools,' if config.global_pool_conditions else ''} and needs 3 that it sees place by place."
        )
    shrinks = 2 ** (len(config.conditioning_embedding_out_channels) - 1)
    if shrinks != shrinks_by:
        raise PriorError(
            f"{named} makes its picture {shrinks} times smaller, and the prior's latents are {shrinks_by} times smaller than images: "
            "it is of another family."
        )
    check_finite(named, net)
    # diffusers' own `to` warns of the precision.
    return nn.Module.to(net, dtype)


def _of_file(path: Path, unet: Any) -> Any:
    """Read a file with diffusers' names or those of the authors' code (control_model.*); its layout is the U-Net's."""
    from diffusers import ControlNetModel
    from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint

    try:
        weights = convert_controlnet_checkpoint(contents_of(path), unet.config)
        # What the U-Net does not know of it: how wide the layers are that take the picture.
        layers = sorted(int(name.split(".")[2]) for name in weights if re.fullmatch(TAKES_PICTURE, name))
        names = ["conv_in", *(f"blocks.{layer}" for layer in layers if layer % 2)]
        widths = tuple(len(weights[f"controlnet_cond_embedding.{name}.weight"]) for name in names)
        net = ControlNetModel.from_unet(
            unet, load_weights_from_unet=False, conditioning_embedding_out_channels=widths
        )
        wrong = net.load_state_dict(weights, strict=False)
    except (KeyError, RuntimeError) as error:  # names or shapes of another network
        raise ValueError(f"it is no ControlNet of this prior ({in_short(error)})") from None
    if wrong.missing_keys or wrong.unexpected_keys:
        odd = [*wrong.missing_keys, *wrong.unexpected_keys]
        raise ValueError(f"it is no ControlNet of this prior, for {odd[0]} is missing or too many")
    return net


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _whose(value: Any) -> str:
    return WHOSE.get(value, "") if isinstance(value, int) else ""
