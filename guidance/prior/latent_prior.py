"""A latent model as a prior over rendered views: what is the same for a U-Net and a transformer, of noise and of flow."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from guidance.condition import IMAGE, Condition
from guidance.contract import Prediction
from guidance.prediction import KINDS
from guidance.prior.autoencoders import posterior_mean, scaled, shrinks_by, unscaled
from guidance.prior.compiled import Compiled, lasting_cache
from guidance.prior.compiled_unet import compiled_unet
from guidance.prior.model_files import fingerprint
from guidance.prior.overflow import OverflowWatch
from guidance.prior.parametrization import Parametrization
from utils.device import computes_bfloat16

logger = logging.getLogger(__name__)

NAMES = {
    "vae": "The autoencoder",
    "unet": "The U-Net",
    "transformer": "The transformer",
    "small_encoder": "The small encoder",
    "controlnets": "The ControlNets",
}
"""Attribute of the prior that holds a network -> its name in messages."""


class LatentPrior:
    """A denoiser in the latents of an autoencoder, as the guidances see it.

    Only this class knows what the network predicts. Parameters are frozen; the networks run in their own precision
    and everything handed out is float32. None of `encode`, `decode` and `predict` waits for the device.

    Args:
        vae: diffusers' autoencoder (which type checkers cannot see into).
        network: diffusers' U-Net or transformer.
        predicts: what the network's answers mean, and at which noise levels.
        latents: C, h and w of the latents that the network takes, and before them the number of views of a set if it
            takes several.
        files: the files they come from, by what they are.
        small_encoder: diffusers' AutoencoderTiny of the same latents, of which only the encoder is used.

    Attributes:
        schedule: noise levels, and the times that the network is told.
        image_size: pixels; images of another size are resized before they are encoded.
        device: the networks' device.
        encodes_with: the network that encodes from now on, "vae" or "small_encoder"; the other half, which decodes,
            is always the autoencoder's.
        encode_singly: the autoencoder sees one view at a time, and computes its activations again on the way
            back: no more than one view's are ever held, at the cost of one more pass forward.
    """

    core = "unet"
    """Attribute that holds the network."""
    views_per_set = 1
    """Number of views that the network sees together."""
    edits = False
    """Whether it changes an original that it is shown, as `InstructPix2Pix` does, and its prompt is an instruction."""
    takes_image_prompt = False
    """Whether there are adapters for image prompts that fit its network."""
    image_tokens: tuple[Tensor, Tensor] | None = None
    """Tokens [1, T, D] of an image prompt and of none, where the network has its adapter."""
    controlnets: Any = None
    """What is shown pictures and adds to the network, see `ControlNets`; only for Stable Diffusion 1 and 2."""

    def __init__(
        self,
        vae: Any,
        network: Any,
        predicts: Parametrization,
        latents: tuple[int, ...],
        files: Mapping[str, Path] | None = None,
        small_encoder: Any = None,
    ) -> None:
        self.vae, self.small_encoder, self.encodes_with = vae, small_encoder, "vae"
        setattr(self, self.core, network)
        for each in self.networks().values():
            # Convolutions are faster in this order, on processors and accelerators alike.
            each.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        # Of no effect but where the network is differentiated (SCTD's `approximate: false`): activations are computed
        # again on the way back, block by block, for a chain of networks would not fit otherwise.
        network.enable_gradient_checkpointing()
        self.encode_singly = False
        self._encoders = self._plain_encoders()
        self._denoise: Callable[..., Tensor] = self._plain_denoise
        self._watch = OverflowWatch()
        self.schedule, self._read = predicts.schedule, KINDS[predicts.prediction_type]
        self.device = next(network.parameters()).device
        self.latents, self.image_size = latents, latents[-1] * shrinks_by(vae.config)
        self._files = dict(files or {})

    def answer(self, z: Tensor, told: Tensor, *parts: Tensor) -> Tensor:
        """Return what the network answers [B, C, h, w] at latents z and the times that it is told [B], under a
        condition's parts."""
        raise NotImplementedError

    def embed(self, prompts: Sequence[str]) -> Condition:
        """Return the conditions of P texts."""
        raise NotImplementedError

    def free_text_encoder(self) -> None:
        """Let go of whatever embeds texts, when all are embedded."""
        raise NotImplementedError

    def blank_condition(self, rows: int) -> Condition:
        """Make a condition without a meaning, as large as one of a text."""
        raise NotImplementedError

    def whole_blank(self, rows: int) -> Condition:
        """Make a condition without a meaning with all its parts but ControlNets' pictures, as large as those of a run."""
        blank = self.blank_condition(rows)
        if self.image_tokens is None:
            return blank
        length, width = self.image_tokens[0].shape[1:]
        return blank.with_part(IMAGE, torch.zeros(rows, length, width + 1, device=self.device))

    def blank_pictures(self, views: int) -> Tensor:
        """Make pictures without a meaning, [views, n, 3, H, W], for n ControlNets."""
        shape = views, len(self.controlnets), 3, self.image_size, self.image_size
        return torch.zeros(shape, device=self.device)

    @property
    def network(self) -> Any:
        """The U-Net or transformer."""
        return getattr(self, self.core)

    def networks(self) -> dict[str, Any]:
        """Return the networks that a run computes with, by their attribute's name."""
        found = {name: getattr(self, name, None) for name in NAMES}
        return {name: network for name, network in found.items() if network is not None}

    @cached_property
    def fingerprint(self) -> str:
        """Digest of its files: another fingerprint, other weights. Blank for networks that come from none."""
        return fingerprint(self._files) if self._files else ""

    def encode(self, images: Tensor) -> Tensor:
        """Encode images [V, 3, H, W] in [0, 1] as scaled latents z_0 [V, C, h, w] float32, differentiable.

        The result is the posterior's mean, not a sample. The posterior of a trained VAE is narrow, so sampling
        would add little but one more noise to every gradient and one more generator to keep. A small encoder is
        trained to that mean, in a scale of its own, which its configuration names.
        """
        size = (self.image_size, self.image_size)
        if images.shape[-2:] != size:
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
        name = self.encodes_with
        latents = self._by_autoencoder(name, self._encoders[name], 2 * images - 1)
        return scaled(latents, getattr(self, name).config)

    def decode(self, z: Tensor) -> Tensor:
        """Images [V, 3, H, W] float32 in [0, 1] of scaled latents z [V, C, h, w]."""
        z = unscaled(z, self.vae.config)
        decoded = self._by_autoencoder("vae", lambda latents: self.vae.decode(latents).sample, z)
        return (0.5 * decoded + 0.5).clamp(0, 1)

    def predict(self, z: Tensor, t: Tensor, condition: Condition) -> Prediction:
        """Prediction, float32, at latents z [B, C, h, w] and timesteps t [B] (host) under B conditions."""
        inputs = self._inputs(z, t, condition)
        if torch.is_grad_enabled() and z.requires_grad:
            # Checkpointed block by block: a graph of the whole would hold what checkpoints are there to forget.
            output = self._plain_denoise(*inputs)
        else:
            with torch.no_grad():
                output = self._denoise(*inputs)
        return self._read(z, self._watched(self.core, output), t, self.schedule)

    def _inputs(self, z: Tensor, t: Tensor, condition: Condition) -> tuple[Tensor, ...]:
        """Convert all that the network takes to its device and precision."""
        dtype = _precision(self.network)
        told = self.schedule.told(t).to(self.device, non_blocking=True)
        parts = (part.to(dtype) if part.is_floating_point() else part for part in condition.parts.values())
        return z.to(dtype), told, *parts

    def _by_autoencoder(self, name: str, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Return function(x), float32; the function is the half of autoencoder `name` that takes x [V, ...]."""
        x = x.to(_precision(getattr(self, name)))
        if self.encode_singly:
            views = [
                checkpoint(function, view, use_reentrant=False, preserve_rng_state=False)
                for view in x.split(1)
            ]
            return self._watched(name, torch.cat(views))
        return self._watched(name, function(x))

    def _plain_encoders(self) -> dict[str, Callable[..., Tensor]]:
        encoders = {"vae": self._plain_posterior_mean, "small_encoder": self._plain_small_latents}
        return {name: encoder for name, encoder in encoders.items() if name in self.networks()}

    def _plain_small_latents(self, images: Tensor) -> Tensor:
        return self.small_encoder.encode(images).latents

    def _plain_posterior_mean(self, images: Tensor) -> Tensor:
        return posterior_mean(self.vae, images)

    def _plain_denoise(self, z: Tensor, told: Tensor, *parts: Tensor) -> Tensor:
        return self.answer(z, told, *parts)

    def _watched(self, name: str, output: Tensor) -> Tensor:
        """Return a network's output in float32, noted by the watch if it ran in float16."""
        output = output.float()
        if _precision(getattr(self, name)) == torch.float16:
            self._watch.look(name, output)
        return output

    def widen_overflowed(self) -> bool:
        """Widen the networks whose answers have left float16 since the last call; return whether there are any.

        Waits for the device: to be called when a gradient turns out not to be finite, and now and then.
        """
        overflowed = self._watch.take()
        for name in overflowed:
            self.widen(name)
        return bool(overflowed)

    def widen(self, name: str) -> bool:
        """Take a network, one of `networks`, out of float16 for good and warn; return whether it ran in float16."""
        network = getattr(self, name)
        if _precision(network) != torch.float16:
            return False
        network.to(torch.bfloat16 if computes_bfloat16(self.device) else torch.float32)
        logger.warning(
            "%s leaves the range of float16: from here on it runs in %s.",
            NAMES[name],
            str(_precision(network)).removeprefix("torch."),
        )
        return True

    def uncompiled(self) -> Self:
        """Make another prior with the same networks, uncompiled."""
        plain = copy.copy(self)
        plain._encoders, plain._denoise = plain._plain_encoders(), plain._plain_denoise
        return plain

    def with_autoencoder(self) -> Self:
        """Make another prior with the same networks, whose autoencoder always encodes."""
        exact = copy.copy(self)
        exact.encodes_with = "vae"
        return exact

    def compile(
        self,
        how: str,
        views: int,
        shares: Mapping[int, float],
        needed: int = 0,
        encoders: Sequence[str] = ("vae",),
    ) -> None:
        """Have torch compile the `encoders`, by the names of their networks, for `views` images at a time, and the U-Net.

        Networks that cannot be compiled here run as they are, after one sentence. Takes minutes where torch has
        nothing kept.

        Args:
            how, needed: see `compiled_unet`.
            shares: frequency of each of the U-Net's batch sizes.
        """
        began = time.monotonic()
        logger.info(
            "Compiling the prior's networks; what later runs need of it is kept in %s.", lasting_cache()
        )
        self._denoise = compiled_unet(
            self._plain_denoise, self._blank, how, shares, self.device, needed, NAMES[self.core]
        )

        def encode_and_back() -> None:
            grey = torch.full((views, 3, self.image_size, self.image_size), 0.5, device=self.device)
            self.encode(grey.requires_grad_()).sum().backward()

        plain, first = self._plain_encoders(), self.encodes_with
        for name in encoders:
            called = "The encoder" if name == "vae" else NAMES[name]
            encoder = Compiled(called, plain[name], batched=False)
            self._encoders[name], self.encodes_with = encoder, name
            encoder.warm_up(encode_and_back)
        self.encodes_with = first
        logger.info("That took %.0f s.", time.monotonic() - began)

    def _blank(self, rows: int) -> tuple[Tensor, ...]:
        """Make latents, times and conditions without a meaning, as the network takes them."""
        z = torch.zeros(rows, *self.latents, device=self.device)
        t = torch.full((rows,), self.schedule.num_timesteps // 2)
        return self._inputs(z, t, self.whole_blank(rows))


def _precision(network: Any) -> torch.dtype:
    """Precision of all a network's parameters; diffusers' own attribute goes through every module for it."""
    return next(network.parameters()).dtype
