"""Stable Diffusion as a prior over rendered views: latents in, predicted noise out."""

from __future__ import annotations

import logging
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from guidance.condition import PICTURES, Condition
from guidance.contract import Prediction
from guidance.prior.adaptations import Adaptations, adapt
from guidance.prior.autoencoders import shrinks_by
from guidance.prior.compiled_unet import compiled_unet
from guidance.prior.controlnet import ControlNets, Controls
from guidance.prior.image_prompt import read_image_prompt, with_image
from guidance.prior.image_prompt_files import ImagePromptFiles
from guidance.prior.latent_prior import LatentPrior
from guidance.prior.libraries import quiet_libraries, without_progress_bars
from guidance.prior.model_files import SMALL_ENCODER, PriorError, find_model, find_single_file
from guidance.prior.networks import read_networks, read_tokenizer
from guidance.prior.parametrization import Parametrization, parametrization_of
from guidance.prior.single_file import Header, header_of
from guidance.prior.small_encoder import find_small_encoder, read_small_encoder, report_difference
from guidance.prompts import VIEW_WORDS
from utils.device import is_accelerator

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer

logger = logging.getLogger(__name__)

PLAIN = Adaptations()


@dataclass(frozen=True)
class Found:
    """A model's files.

    Attributes:
        settings: the folder with its scheduler and tokenizer.
        files: all files that a run depends on, by what they are.
        header: of a single file, None for a folder.
        read: reads its networks "vae", "unet" and "text_encoder" to the host, in a precision.
    """

    settings: Path
    files: Mapping[str, Path]
    header: Header | None
    read: Callable[[torch.dtype], dict[str, Any]]


class StableDiffusionPrior(LatentPrior):
    """A U-Net under one CLIP in diffusers layout: Stable Diffusion 1 and 2, toybox, and their fine-tunes.

    Args:
        vae, unet: diffusers' AutoencoderKL and UNet2DConditionModel.
        predicts: what the U-Net's answers mean, and at which noise levels.
        files: the files they come from, by what they are.
        adaptations: LoRA, textual inversion, layers left out.
        small_encoder, controlnets: see `LatentPrior`.

    Attributes:
        text_encoder: None once it is freed.
    """

    unet: Any
    takes_image_prompt = True

    def __init__(
        self,
        vae: Any,
        unet: Any,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        predicts: Parametrization,
        files: Mapping[str, Path] | None = None,
        adaptations: Adaptations = PLAIN,
        small_encoder: Any = None,
        controlnets: ControlNets | None = None,
    ) -> None:
        self.controlnets = controlnets
        self.tokenizer = tokenizer
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
        text_encoder.eval().requires_grad_(False)
        side = int(unet.config.sample_size)
        latents = int(unet.config.out_channels), side, side
        super().__init__(vae, unet, predicts, latents, dict(files or {}) | adaptations.files(), small_encoder)

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
        controls: Controls | None = None,
        image_prompt: ImagePromptFiles | None = None,
    ) -> StableDiffusionPrior:
        """Load 'toybox', a local diffusers folder, a hub id or a single .safetensors file.

        Args:
            fp16: run in half precision where `device` is an accelerator; elsewhere it is always float32.
            base_model_key: the model that a single file was made from, for its configuration and tokenizer.
            prediction_type: "epsilon" or "v_prediction", against what its files name.
            adaptations: LoRA, textual inversion, layers left out.
            small_encoder: load a small encoder too, that of `small_encoder_key` or of the model's family.
            controls: ControlNets to load too.
            image_prompt: a picture's adapter to load too.
        Raises: PriorError, in one sentence, if it is nowhere to be had, incomplete, or of a family that cannot guide.
        """
        adaptations.check()
        half = fp16 and is_accelerator(device)
        dtype = torch.float16 if half else torch.float32
        found = cls.find(model_key, base_model_key, half=half)
        small = find_small_encoder(small_encoder_key, found.settings) if small_encoder else None
        with without_progress_bars():
            predicts = parametrization_of(model_key, found.settings, found.header, prediction_type)
            networks = found.read(dtype)
            tokenizer = read_tokenizer(found.settings, model_key)
            if small is not None:
                networks["small_encoder"] = read_small_encoder(small, networks["vae"], dtype)
            if controls is not None:
                networks["controlnets"] = controls.read(
                    networks["unet"], shrinks_by(networks["vae"].config), dtype
                )
            tokens = (
                None if image_prompt is None else read_image_prompt(image_prompt, networks["unet"], device)
            )
        prior = cls(
            **{name: network.to(device) for name, network in networks.items()},
            tokenizer=tokenizer,
            predicts=predicts,
            files={
                **found.files,
                **(small.files(SMALL_ENCODER) if small is not None else {}),
                **(controls.all_files() if controls is not None else {}),
                **(image_prompt.files() if image_prompt is not None else {}),
            },
            adaptations=adaptations,
        )
        prior.image_tokens = tokens
        if small is not None:
            report_difference(small, prior.vae, prior.small_encoder)
        return prior

    @classmethod
    def find(cls, model_key: str, base_model_key: str | None, *, half: bool) -> Found:
        """Find a model's files, which are fetched if need be.

        half: prefer weights stored in half precision, where both are there.

        Raises: PriorError, in one sentence, as `load` does.
        """
        single = find_single_file(model_key, base_model_key)
        if single is None:
            folder = find_model(model_key, half=half)
            return Found(
                folder.path, folder.files(), None, lambda dtype: read_networks(folder, model_key, dtype)
            )
        header = header_of(model_key, single)
        return Found(
            single.base, single.files(), header, lambda dtype: read_networks(single, model_key, dtype)
        )

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Condition:
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
        hidden = said.last_hidden_state
        if self._left_out > 0:
            hidden = encoder.final_layer_norm(said.hidden_states[-1 - self._left_out])
        return Condition({"text": hidden.float()})

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

    def answer(self, z: Tensor, told: Tensor, *parts: Tensor) -> Tensor:
        """Return what the U-Net answers [B, C, h, w]; the parts are texts [B, L, D], an image prompt's tokens where there is one,
        and, for ControlNets, pictures."""
        text, *pictures = parts
        read = with_image(text, pictures.pop(0)) if self.image_tokens is not None else text
        return self.unet(z, told, read, **self.added(z, told, text, *pictures)).sample

    def added(self, z: Tensor, told: Tensor, text: Tensor, pictures: Tensor | None = None) -> dict[str, Any]:
        """Return what the ControlNets add, as arguments of the U-Net; nothing without pictures [B, n, 3, H, W]."""
        return {} if pictures is None else self.controlnets(z, told, text, pictures)

    def predict(self, z: Tensor, t: Tensor, condition: Condition) -> Prediction:
        """Predict as `LatentPrior` does. Rows that have pictures go through the ControlNets where their times are such that
        these act."""
        if PICTURES not in condition.parts:
            return super().predict(z, t, condition)
        acts = self.controlnets.act_at(t, self.schedule.num_timesteps)
        if bool(acts.all()):
            return super().predict(z, t, condition)
        predict, plain = super().predict, condition.without_pictures()
        if not bool(acts.any()):
            return predict(z, t, plain)
        groups = [
            (torch.nonzero(mine).squeeze(1), told) for mine, told in ((acts, condition), (~acts, plain))
        ]
        found = [
            predict(z[rows.to(z.device, non_blocking=True)], t[rows], told.rows(rows))
            for rows, told in groups
        ]
        back = torch.cat([rows for rows, _ in groups]).argsort().to(z.device, non_blocking=True)

        def joined(part: Callable[[Prediction], Tensor]) -> Tensor:
            return torch.cat([part(each) for each in found])[back]

        return Prediction(joined(lambda each: each.eps), lambda: joined(lambda each: each.clean))

    def compile(
        self,
        how: str,
        views: int,
        shares: Mapping[int, float],
        needed: int = 0,
        encoders: Sequence[str] = ("vae",),
    ) -> None:
        """Compile as `LatentPrior` does, and the U-Net a second time, with its ControlNets."""
        super().compile(how, views, shares, needed, encoders)
        if self.controlnets is None:
            return
        name, alone, parts = "The U-Net with its ControlNets", self._denoise, len(self._blank(1))
        shown = compiled_unet(self._plain_denoise, self._blank_shown, how, shares, self.device, needed, name)

        def either(*inputs: Tensor) -> Tensor:
            return alone(*inputs) if len(inputs) == parts else shown(*inputs)

        self._denoise = either

    def widen(self, name: str) -> bool:
        """Widen as `LatentPrior` does; ControlNets go with the U-Net, whose precision they have."""
        widened = super().widen(name)
        if widened and name == self.core and self.controlnets is not None:
            self.controlnets.to(next(self.unet.parameters()).dtype)
        return widened

    def _blank_shown(self, rows: int) -> tuple[Tensor, ...]:
        """Make what `_blank` does, with pictures."""
        inputs, pictures = self._blank(rows), self.blank_pictures(rows * self.views_per_set)
        if self.views_per_set > 1:
            pictures = pictures.unflatten(0, (rows, -1))
        return *inputs, pictures.to(inputs[0].dtype)

    def blank_condition(self, rows: int) -> Condition:
        """Make texts without a meaning."""
        width = int(self.unet.config.cross_attention_dim)
        return Condition({"text": torch.zeros(rows, self._text_length, width, device=self.device)})


def _without_view_words(prompt: str) -> tuple[str, str]:
    """Split a prompt into its text and the view words that it ends in, which may be none."""
    ending = next((words for words in VIEW_WORDS if prompt.endswith(words)), "")
    return prompt.removesuffix(ending), ending
