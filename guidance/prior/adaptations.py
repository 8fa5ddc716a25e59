"""Adaptations of a Stable Diffusion: LoRA weights, and the words of a textual inversion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guidance.prior.lora_files import KEY as LORA
from guidance.prior.lora_files import config_beside, file_in, read_lora
from guidance.prior.lora_merge import merge_lora
from guidance.prior.model_files import PriorError
from guidance.prior.weight_files import SUFFIXES
from guidance.prior.words import KEY as WORDS
from guidance.prior.words import learn_words, read_words, warn_of_unused_words

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer


@dataclass(frozen=True)
class Adaptations:
    """Files and settings that change a model.

    Attributes:
        lora: a file in the layout of diffusers, PEFT, kohya or LyCORIS, or a folder that PEFT or diffusers wrote.
        lora_scale: factor of its change of the weights.
        lora_partial: apply a file of which only a part fits the model.
        words: a textual inversion's file.
        clip_skip: which of the text encoder's layers is read, counted from the last: n leaves out n - 1.
        prompts: those of the run, of which one is to have each word.
    """

    lora: str | None = None
    lora_scale: float = 1.0
    lora_partial: bool = False
    words: str | None = None
    clip_skip: int = 1
    prompts: tuple[str, ...] = ()

    def files(self) -> dict[str, Path]:
        """Return the files that are given, by their keys in the configuration, and PEFT's settings beside them."""
        found = {}
        if self.lora is not None:
            found[LORA] = file_in(Path(self.lora).expanduser())
            if config := config_beside(found[LORA]):
                found[config.name] = config
        if self.words is not None:
            found[WORDS] = Path(self.words).expanduser()
        return found

    def check(self) -> None:
        """Check what can be known before anything is loaded: that the files can be read and are finite.

        Warns of words that no prompt has.

        Raises: PriorError, one sentence.
        """
        files = self.files()
        for key in (LORA, WORDS):
            path = files.get(key)
            if path is None:
                continue
            if key == LORA and path.is_dir():
                raise PriorError(
                    f"{key} is '{path}', a folder without adapter_model or pytorch_lora_weights "
                    f"({', '.join(SUFFIXES[:2])})."
                )
            if not path.is_file():
                raise PriorError(f"{key} is '{path}', but there is no such file.")
            if path.suffix not in SUFFIXES:
                raise PriorError(
                    f"{key} is '{path}', but it must be a file of weights: {', '.join(SUFFIXES)}."
                )
            if key == LORA:
                read_lora(path)
                continue
            words = read_words(path)
            if self.prompts:
                warn_of_unused_words(path, list(words), self.prompts)


def adapt(
    unet: Any, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, adaptations: Adaptations
) -> Callable[[str], str]:
    """Put the adaptations into networks, for good, and return the spelling of prompts.

    A word of several vectors is spelt as several tokens.

    Raises: PriorError, one sentence, for a file that cannot be read or does not fit these networks.
    """
    files = adaptations.files()
    if lora := files.get(LORA):
        networks = {"unet": unet, "text_encoder": text_encoder}
        merge_lora(networks, read_lora(lora), adaptations.lora_scale, part=adaptations.lora_partial)
    if words := files.get(WORDS):
        return learn_words(words, read_words(words), tokenizer, text_encoder)
    return str
