"""What diffusers' autoencoders have in common: how much they shrink an image, and the scale of their latents."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def shrinks_by(config: Any) -> int:
    """Return by what factor the latents of an autoencoder of this configuration are smaller than its images."""
    blocks = getattr(config, "block_out_channels", None) or config.encoder_block_out_channels
    return int(2 ** (len(blocks) - 1))


def posterior_mean(vae: Any, images: Tensor) -> Tensor:
    """Return the raw latents of images in [-1, 1]: the posterior's mean, or what DC-AE has instead."""
    encoded = vae.encode(images)
    found: Tensor = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latent
    return found


def scaled(latents: Tensor, config: Any) -> Tensor:
    """Return raw latents in the scale that the network knows."""
    if shift := _shift_of(config):
        latents = latents - shift
    return latents * config.scaling_factor


def unscaled(z: Tensor, config: Any) -> Tensor:
    """Return latents that the network knows in the autoencoder's own scale."""
    z = z / config.scaling_factor
    if shift := _shift_of(config):
        z = z + shift
    return z


def _shift_of(config: Any) -> float:
    """Offset of an autoencoder's latents; 0 where its configuration names none."""
    return getattr(config, "shift_factor", None) or 0.0
