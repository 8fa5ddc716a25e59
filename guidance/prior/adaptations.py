"""Adaptations of a Stable Diffusion: LoRA weights, and the words of a textual inversion."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from guidance.prior.libraries import in_short, quiet_libraries
from guidance.prior.model_files import PriorError
from utils.device import HOST

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

SUFFIXES = (".safetensors", ".bin", ".pt")
"""Suffixes of weight files. The last two are pickles, from which diffusers reads nothing but tensors
(`weights_only`)."""


@dataclass(frozen=True)
class Adaptations:
    """Files and settings that change a model.

    Attributes:
        lora: a file in the layout of diffusers, PEFT or kohya.
        lora_scale: factor of its change of the weights.
        words: a textual inversion's file.
        clip_skip: which of the text encoder's layers is read, counted from the last: n leaves out n - 1.
    """

    lora: str | None = None
    lora_scale: float = 1.0
    words: str | None = None
    clip_skip: int = 1

    def files(self) -> dict[str, Path]:
        """Return the files that are given, by their keys in the configuration."""
        given = {"LoRA_path": self.lora, "textual_inversion_path": self.words}
        return {key: Path(path).expanduser() for key, path in given.items() if path is not None}

    def check(self) -> None:
        """Check what can be known before anything is loaded.

        Raises: PriorError, one sentence.
        """
        for key, path in self.files().items():
            if not path.is_file():
                raise PriorError(f"{key} is '{path}', but there is no such file.")
            if path.suffix not in SUFFIXES:
                raise PriorError(
                    f"{key} is '{path}', but it must be a file of weights: {', '.join(SUFFIXES)}."
                )
        if self.lora is not None and importlib.util.find_spec("peft") is None:
            raise PriorError(
                'LoRA_path needs PEFT, which is not installed here: python -m pip install -e ".[lora]".'
            )


def adapt(pipeline: StableDiffusionPipeline, adaptations: Adaptations) -> Callable[[str], str]:
    """Put the adaptations into a pipeline's networks, for good, and return the spelling of prompts.

    A word of several vectors is spelt as several tokens.

    Raises: PriorError, one sentence, for a file that cannot be read or does not fit these networks.
    """
    files = adaptations.files()
    if words := files.get("textual_inversion_path"):
        with _one_sentence("textual_inversion_path", words):
            pipeline.load_textual_inversion(str(words), token=_word_of(words), local_files_only=True)
    if lora := files.get("LoRA_path"):
        _merge_lora(pipeline, lora, adaptations.lora_scale)
    return lambda prompt: pipeline.maybe_convert_prompt(prompt, pipeline.tokenizer)


def _word_of(path: Path) -> str | None:
    """Word for a textual inversion that names none: its file's name, as where it comes from; else None.

    AUTOMATIC1111 writes the vectors of a .safetensors file as "emb_params", which nobody means as a word.
    """
    return path.stem if list(_tensors_in(path)) == ["emb_params"] else None


def _merge_lora(pipeline: StableDiffusionPipeline, path: Path, scale: float) -> None:
    networks = (pipeline.unet, pipeline.text_encoder)
    before = [_sums(network) for network in networks]
    with _one_sentence("LoRA_path", path):
        pipeline.load_lora_weights(_lora_of(path), local_files_only=True)
        pipeline.fuse_lora(lora_scale=scale)
        pipeline.unload_lora_weights()
    if scale != 0 and before == [_sums(network) for network in networks]:
        raise PriorError(f"LoRA_path '{path}' changes no weight of this model: it is of another one.")


def _lora_of(path: Path) -> str | dict[str, Tensor]:
    """Return diffusers' input: the file, or for one in kohya's layout its tensors with their strength in them.

    There each module has an alpha, and counts alpha/rank times. Alphas differ in files whose modules were cut
    to ranks of their own. Diffusers gives these names that no module has, and all count by the commonest one.
    Either factor takes the root, so that neither leaves the range of float16.
    """
    tensors = _tensors_in(path)
    alphas = [name for name in tensors if name.endswith(".alpha")]
    for name in alphas:
        down, up = (name.replace(".alpha", f".lora_{way}.weight") for way in ("down", "up"))
        if down in tensors and up in tensors:
            root = sqrt(float(tensors.pop(name)) / tensors[down].shape[0])
            tensors[down], tensors[up] = root * tensors[down].float(), root * tensors[up].float()
    return tensors if alphas else str(path)


def _tensors_in(path: Path) -> dict[str, Any]:
    """Read a file of weights; from a pickle nothing but tensors and their containers."""
    if path.suffix == ".safetensors":
        return load_file(path)
    try:
        return dict(torch.load(path, map_location=HOST, weights_only=True))
    except UnpicklingError:  # torch's own words are a page, and end in how to run the program that is in it
        raise ValueError("it holds more than tensors") from None


def _sums(network: torch.nn.Module) -> list[float]:
    return [float(parameter.detach().double().sum()) for parameter in network.parameters()]


@contextmanager
def _one_sentence(key: str, path: Path) -> Iterator[None]:
    """Turn whatever the libraries raise inside into a PriorError of one sentence, and silence their logs."""
    try:
        with quiet_libraries():
            yield
    except Exception as error:
        raise PriorError(f"{key} '{path}' does not fit this model ({in_short(error)}).") from error


def pipeline_of(**parts: Any) -> StableDiffusionPipeline:
    """Make diffusers' pipeline. Nothing here runs it, but its loaders know the files of other programs."""
    with quiet_libraries():
        from diffusers import StableDiffusionPipeline

        return StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
