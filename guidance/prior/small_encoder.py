"""The small encoder: an AutoencoderTiny (TAESD) whose latents are the autoencoder's, at a fraction of its cost.

Its own convention: images in [-1, 1] as for every autoencoder of diffusers, latents without a posterior, and already in
the scaled space of the autoencoder whose place it takes (scaling_factor 1).
"""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from guidance.prior.autoencoders import posterior_mean, scaled, shrinks_by
from guidance.prior.model_files import SMALL_ENCODER, PriorError
from guidance.prior.network_files import NetworkFiles, check_finite, find_network, read_network
from guidance.prior.weight_files import contents_of, reading
from utils.device import HOST

TAESD = "madebyollin/taesd"
"""The one of Stable Diffusion 1 and 2: their autoencoders have the same latents."""
WAYS_OUT = (
    "--small_encoder_key takes a folder, a hub id or a .safetensors file, and --encoder full needs none"
)
MOST_DIFFERENT = 1.0
"""Difference of the latents on a test picture, as a share of them, from which they are of another family."""

logger = logging.getLogger(__name__)


def find_small_encoder(key: str | None, model: Path, published: str | None = TAESD) -> NetworkFiles:
    """Find the small encoder that `small_encoder_key` names; None: the one in the folder of the model, or else the
    `published` one of its family, None where there is none.

    Raises: PriorError, in one sentence, if it is nowhere or incomplete.
    """
    if key is None:
        own = model / SMALL_ENCODER
        if own.is_dir():
            key = str(own)
        elif published is not None:
            key = published
        else:
            raise PriorError(f"encoder is small, but no small encoder of this family is known; {WAYS_OUT}.")
    return find_network("small_encoder_key", key, WAYS_OUT)


def read_small_encoder(files: NetworkFiles, vae: Any, dtype: torch.dtype) -> Any:
    """Read it to the host, an AutoencoderTiny whose encoder is complete and fits to the latents of `vae`.

    Raises: PriorError, in one sentence.
    """
    from diffusers import AutoencoderTiny

    with reading("small_encoder_key", files.path):
        if files.path.is_file():
            small = _of_file(files.path)
        else:
            small = read_network(AutoencoderTiny, files.path, needed="encoder.")
    named = f"small_encoder_key '{files.key}'"
    ours, theirs = ((int(each.config.latent_channels), shrinks_by(each.config)) for each in (small, vae))
    if ours != theirs:
        raise PriorError(
            f"{named} makes latents of {ours[0]} channels at 1/{ours[1]} of an image's size, and the autoencoder of "
            f"{theirs[0]} at 1/{theirs[1]}: it is of another family; {WAYS_OUT}."
        )
    check_finite(named, small.encoder)
    # diffusers' own `to` warns of the precision.
    return nn.Module.to(small, dtype)


def _of_file(path: Path) -> Any:
    """Read a file of TAESD's own or of diffusers' names: the former's are the numbers of the encoder's layers."""
    from diffusers import AutoencoderTiny

    small, found = AutoencoderTiny(), contents_of(path)
    encoder = {
        re.sub(r"^(encoder\.)?(layers\.)?", "", name): values
        for name, values in found.items()
        if not name.startswith("decoder.")
    }
    wrong = small.encoder.layers.load_state_dict(encoder, strict=False)
    if wrong.missing_keys or wrong.unexpected_keys:
        odd = [*wrong.missing_keys, *wrong.unexpected_keys]
        raise ValueError(f"it is no encoder of TAESD, for {odd[0]} is missing or too many")
    return small


@torch.no_grad()
def report_difference(files: NetworkFiles, vae: Any, small: Any) -> None:
    """Log how far the two's latents of a test picture are apart: families that do not fit have latents of the same shape."""
    parameter = next(vae.parameters())
    ramp = torch.linspace(-1, 1, 128, device=HOST)
    picture = torch.stack(
        [ramp.expand(128, 128), ramp[:, None].expand(128, 128), (8 * ramp).sin().outer(ramp)]
    )
    picture = picture[None].to(parameter)
    wanted = scaled(posterior_mean(vae, picture).float(), vae.config)
    found = scaled(small.encode(picture.to(next(small.parameters()))).latents.float(), small.config)
    off = float((found - wanted).norm() / wanted.norm())
    if not math.isfinite(off):
        # Half precision is to blame, which the run itself watches for.
        return
    said = (
        f"Small encoder {files.key}: its latents differ by {off:.0%} from the autoencoder's on a test picture"
    )
    if off < MOST_DIFFERENT:
        logger.info("%s.", said)
    else:
        logger.warning("%s, so that it is of another family; %s.", said, WAYS_OUT)
