"""Stable Diffusion as a prior over rendered views: latents in, predicted noise out."""

from __future__ import annotations

import copy
import logging
import re
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from guidance.prior.adaptations import Adaptations, adapt
from guidance.prior.compiled import Compiled, lasting_cache
from guidance.prior.compiled_unet import compiled_unet
from guidance.prior.libraries import quiet_libraries, without_progress_bars
from guidance.prior.model_files import PriorError, SingleFile, find_model, find_single_file, fingerprint
from guidance.prior.networks import read_networks, read_tokenizer
from guidance.prior.overflow import OverflowWatch
from guidance.prior.parametrization import parametrization_of
from guidance.prior.single_file import header_of
from guidance.prior.small_encoder import find_small_encoder, read_small_encoder, report_difference
from guidance.prompts import VIEW_WORDS
from guidance.schedule import Schedule
from guidance.solver import eps_of_v
from utils.device import computes_bfloat16, is_accelerator

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer

logger = logging.getLogger(__name__)

PLAIN = Adaptations()
NAMES = {"vae": "The autoencoder", "unet": "The U-Net", "small_encoder": "The small encoder"}
"""Attribute of the prior that holds a network -> its name in messages."""


class StableDiffusionPrior:
    """A latent diffusion model in diffusers layout: Stable Diffusion 1 and 2, toybox, and their fine-tunes.

    Only this class knows whether the network predicts the noise or v. Parameters are frozen; the networks run
    in their own precision and everything handed out is float32. None of `encode`, `decode` and `eps` waits for
    the device.

    Args:
        vae, unet: diffusers' AutoencoderKL and UNet2DConditionModel (which type checkers cannot see into).
        files: the files they come from, by what they are.
        adaptations: LoRA, textual inversion, layers left out.
        small_encoder: diffusers' AutoencoderTiny of the same latents, of which only the encoder is used.

    Attributes:
        alphas_cumprod: [T] abar_t.
        steps_offset: timestep at which the scheduler's times begin.
        image_size: pixels; images of another size are resized before they are encoded.
        device: the networks' device.
        text_encoder: None once it is freed.
        encodes_with: the network that encodes from now on, "vae" or "small_encoder"; the other half, which decodes,
            is always the autoencoder's.
        encode_singly: the autoencoder sees one view at a time, and computes its activations again on the way
            back: no more than one view's are ever held, at the cost of one more pass forward.
    """

    def __init__(
        self,
        vae: Any,
        unet: Any,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        alphas_cumprod: Tensor,
        prediction_type: str,
        steps_offset: int,
        files: Mapping[str, Path] | None = None,
        adaptations: Adaptations = PLAIN,
        small_encoder: Any = None,
    ) -> None:
        if prediction_type not in ("epsilon", "v_prediction"):
            raise PriorError(
                f"prediction_type of the scheduler is '{prediction_type}', not 'epsilon' or 'v_prediction'."
            )
        self.vae, self.unet, self.tokenizer = vae, unet, tokenizer
        self.small_encoder, self.encodes_with = small_encoder, "vae"
        self.text_encoder: CLIPTextModel | None = text_encoder
        layers = int(text_encoder.config.num_hidden_layers)
        if adaptations.clip_skip > layers:
            raise PriorError(
                f"clip_skip is {adaptations.clip_skip}, but must be at most {layers}, the number of layers of this text "
                "encoder."
            )
        self._left_out = max(adaptations.clip_skip - 1, 0)
        if self._left_out:
            logger.warning(
                "clip_skip %d leaves out the last %d of the text encoder's %d layers.",
                adaptations.clip_skip, self._left_out, layers,
            )  # fmt: skip
        self._text_length = int(text_encoder.config.max_position_embeddings)
        self._spell: Callable[[str], str] = str
        if adaptations.files():
            self._spell = adapt(unet, text_encoder, tokenizer, adaptations)
        for network in (*self.networks().values(), text_encoder):
            network.eval().requires_grad_(False)
        for network in self.networks().values():
            # Convolutions are faster in this order, on processors and accelerators alike.
            network.to(memory_format=torch.channels_last)
        # Of no effect but where the U-Net is differentiated (SCTD's `approximate: false`): activations are computed
        # again on the way back, block by block, for a chain of U-Nets would not fit otherwise.
        unet.enable_gradient_checkpointing()
        self.encode_singly = False
        self._encoders = self._plain_encoders()
        self._denoise: Callable[..., Tensor] = self._plain_denoise
        self._watch = OverflowWatch()
        self.alphas_cumprod, self.steps_offset = alphas_cumprod, steps_offset
        self.device = unet.device
        self.image_size = int(unet.config.sample_size) * 2 ** (len(vae.config.block_out_channels) - 1)
        self._schedule = Schedule(alphas_cumprod)
        self._files = dict(files or {}) | adaptations.files()
        self._predicts_v = prediction_type == "v_prediction"

    @classmethod
    def load(
        cls,
        model_key: str,
        device: torch.device,
        *,
        fp16: bool = True,
        base_model_key: str | None = None,
        prediction_type: str | None = None,
        adaptations: Adaptations = PLAIN,
        small_encoder: bool = False,
        small_encoder_key: str | None = None,
    ) -> StableDiffusionPrior:
        """Load 'toybox', a local diffusers folder, a hub id or a single .safetensors file.

        Args:
            fp16: run in half precision where `device` is an accelerator; elsewhere it is always float32.
            base_model_key: the model that a single file was made from, for its configuration and tokenizer.
            prediction_type: "epsilon" or "v_prediction", against what its files name.
            adaptations: LoRA, textual inversion, layers left out.
            small_encoder: load a small encoder too, that of `small_encoder_key` or of the model's family.
        Raises: PriorError, in one sentence, if it is nowhere to be had, incomplete, or of a family that cannot guide.
        """
        adaptations.check()
        half = fp16 and is_accelerator(device)
        dtype = torch.float16 if half else torch.float32
        single = find_single_file(model_key, base_model_key)
        files = single or find_model(model_key, half=half)
        settings = files.base if isinstance(files, SingleFile) else files.path
        header = None if single is None else header_of(model_key, single)
        small = find_small_encoder(small_encoder_key, settings) if small_encoder else None
        with without_progress_bars():
            predicts = parametrization_of(model_key, settings, header, prediction_type)
            networks = read_networks(files, model_key, dtype)
            tokenizer = read_tokenizer(settings, model_key)
            if small is not None:
                networks["small_encoder"] = read_small_encoder(small, networks["vae"], dtype)
        prior = cls(
            **{name: network.to(device) for name, network in networks.items()},
            tokenizer=tokenizer,
            alphas_cumprod=predicts.alphas_cumprod,
            prediction_type=predicts.prediction_type,
            steps_offset=predicts.steps_offset,
            files=files.files() | (small.files() if small is not None else {}),
            adaptations=adaptations,
        )
        if small is not None:
            report_difference(small, prior.vae, prior.small_encoder)
        return prior

    def networks(self) -> dict[str, Any]:
        """Return the networks that a run computes with, by their attribute's name."""
        networks = {"vae": self.vae, "unet": self.unet, "small_encoder": self.small_encoder}
        return {name: network for name, network in networks.items() if network is not None}

    @cached_property
    def fingerprint(self) -> str:
        """Digest of its files: another fingerprint, other weights. Blank for networks that come from none."""
        return fingerprint(self._files) if self._files else ""

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Tensor:
        """Return the text encoder's last hidden states [P, L, D] float32 for P prompts, which are cut to L tokens.

        With clip_skip they are those of an earlier layer, normalised like the last ones.

        Raises: RuntimeError if the text encoder has been freed.
        """
        encoder, length = self.text_encoder, self._text_length
        if encoder is None:
            raise RuntimeError(
                "The text encoder has been freed: embed every prompt before free_text_encoder()."
            )
        # They warn of long prompts, without naming what is lost.
        with quiet_libraries():
            prompts = [self._spell(prompt) for prompt in self._cut(prompts)]
        tokens = self.tokenizer(
            prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        said = encoder(tokens.input_ids.to(self.device), output_hidden_states=self._left_out > 0)
        if self._left_out == 0:
            return said.last_hidden_state.float()
        return encoder.final_layer_norm(said.hidden_states[-1 - self._left_out]).float()

    def _cut(self, prompts: Sequence[str]) -> list[str]:
        """Cut what the encoder does not read off each prompt, but not its view words, and report it once.

        Prompts that differ in their view words alone are cut in the same place.
        """
        parts = [_without_view_words(prompt) for prompt in prompts]
        kept: dict[str, str] = {}
        for text in dict(parts):
            endings = [ending for of, ending in parts if of == text]
            kept[text] = self._fitted(text, endings)
            if kept[text] != text:
                logger.warning(
                    "A prompt is longer than the %d tokens that the text encoder reads: of '%s' it leaves out '%s'%s.",
                    self._text_length,
                    text,
                    text[len(kept[text]) :].strip(),
                    ", and the view words stay" if any(endings) else "",
                )
        return [kept[text] + ending for text, ending in parts]

    def _fitted(self, text: str, endings: Sequence[str]) -> str:
        """Return as much of a text's beginning as is read whole with each of the endings behind it.

        It ends between two words, unless there is but one.
        """

        def fits(length: int) -> bool:
            texts = [self._spell(text[:length] + ending) for ending in endings]
            return all(
                len(self.tokenizer(each, verbose=False).input_ids) <= self._text_length for each in texts
            )

        if fits(len(text)):
            return text
        between_words = [space.start() for space in re.finditer(r"\s+", text)]
        for ends in (between_words, range(len(text))):
            # A text has hardly ever fewer tokens than its beginning.
            count = bisect_left(ends, True, key=lambda end: not fits(end))
            kept = next((text[:end].rstrip(" ,;") for end in reversed(ends[:count]) if fits(end)), "")
            if kept:
                return kept
        return ""

    def free_text_encoder(self) -> None:
        """Let go of the text encoder, 0.7 GB of Stable Diffusion 2.1 in half precision, when all prompts are
        embedded."""
        self.text_encoder = None

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
        if name == "small_encoder":
            latents = latents - (self.small_encoder.config.shift_factor or 0.0)
        return latents * getattr(self, name).config.scaling_factor

    def decode(self, z: Tensor) -> Tensor:
        """Images [V, 3, H, W] float32 in [0, 1] of scaled latents z [V, C, h, w]."""
        decoded = self._by_autoencoder(
            "vae", lambda latents: self.vae.decode(latents).sample, z / self.vae.config.scaling_factor
        )
        return (0.5 * decoded + 0.5).clamp(0, 1)

    def eps(self, z: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Predicted noise [B, C, h, w] float32 for latents z at timesteps t [B] (host) given cond [B, L, D].

        The output of a v-prediction model is converted.
        """
        inputs = self._inputs(z, t, cond)
        if torch.is_grad_enabled() and z.requires_grad:
            # Checkpointed block by block: a graph of the whole would hold what checkpoints are there to forget.
            output = self._plain_denoise(*inputs)
        else:
            with torch.no_grad():
                output = self._denoise(*inputs)
        output = self._watched("unet", output)
        return eps_of_v(z, output, t, self._schedule) if self._predicts_v else output

    def _inputs(self, z: Tensor, t: Tensor, cond: Tensor) -> tuple[Tensor, ...]:
        """Convert the three to the U-Net's device and precision."""
        dtype = _precision(self.unet)
        return z.to(dtype), t.to(self.device, non_blocking=True), cond.to(dtype)

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
        return self.vae.encode(images).latent_dist.mean

    def _plain_denoise(self, z: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return self.unet(z, t, cond).sample

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

    def uncompiled(self) -> StableDiffusionPrior:
        """Make another prior with the same networks, uncompiled."""
        plain = copy.copy(self)
        plain._encoders, plain._denoise = plain._plain_encoders(), plain._plain_denoise
        return plain

    def with_autoencoder(self) -> StableDiffusionPrior:
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
        self._denoise = compiled_unet(self._plain_denoise, self._blank, how, shares, self.device, needed)

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
        """Make latents, times and texts without a meaning, as the U-Net takes them."""
        side, config = int(self.unet.config.sample_size), self.unet.config
        z = torch.zeros(rows, int(config.in_channels), side, side, device=self.device)
        cond = torch.zeros(rows, self._text_length, int(config.cross_attention_dim), device=self.device)
        return self._inputs(z, torch.full((rows,), self._schedule.num_timesteps // 2), cond)


def _without_view_words(prompt: str) -> tuple[str, str]:
    """Split a prompt into its text and the view words that it ends in, which may be none."""
    ending = next((words for words in VIEW_WORDS if prompt.endswith(words)), "")
    return prompt.removesuffix(ending), ending


def _precision(network: Any) -> torch.dtype:
    """Precision of all a network's parameters; diffusers' own attribute goes through every module for it."""
    return next(network.parameters()).dtype
