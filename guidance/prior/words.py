"""Words of a textual inversion: read from its file, and given to a tokenizer and its text encoder."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from guidance.prior.model_files import PriorError
from guidance.prior.weight_files import TEXT_WIDTHS, contents_of, numbers, reading

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer

logger = logging.getLogger(__name__)

KEY = "textual_inversion_path"
NAMELESS = ("*", "emb_params", "clip_l")
"""What programs write where a word would be; the word is the file's name then."""

LONGEST_WORD = 100


def read_words(path: Path) -> dict[str, Tensor]:
    """Read the vectors [n, D] float32 of each word, in the layout of diffusers, AUTOMATIC1111 or ComfyUI.

    Raises: PriorError, one sentence, if it cannot be read, holds no word, or a number that is not finite.
    """
    with reading(KEY, path):
        found = contents_of(path)
        if isinstance(found.get("string_to_param"), Mapping):
            vectors = dict(found["string_to_param"])
            named = str(found.get("name") or path.stem)
        else:
            vectors, named = found, path.stem
        vectors = {str(word): values for word, values in vectors.items() if isinstance(values, Tensor)}
        _check_layout(path, vectors)
        words = {
            named if word in NAMELESS else word: numbers(word, values) for word, values in vectors.items()
        }
    if wrong := [
        word for word in words if not word.strip() or not word.isprintable() or len(word) > LONGEST_WORD
    ]:
        raise PriorError(f"{KEY} '{path}' has the word {wrong[0][:LONGEST_WORD]!r}, which nobody can write.")
    return {word: values.reshape(-1, values.shape[-1]) for word, values in words.items()}


def _check_layout(path: Path, vectors: Mapping[str, Any]) -> None:
    sizes = {name: list(values.shape) for name, values in vectors.items()}
    if "clip_g" in sizes or any(name.startswith("t5") for name in sizes):
        family = "Stable Diffusion XL" if set(sizes) <= {"clip_l", "clip_g"} else "Stable Diffusion 3"
        widths = " and ".join(f"{(size or [0])[-1]} ({name})" for name, size in sorted(sizes.items()))
        raise PriorError(
            f"{KEY} '{path}' is of {family}, with vectors of {widths} numbers, one for each of its text encoders; "
            "a model here has one text encoder."
        )
    weights = [name for name in sizes if re.search(r"\.(weight|bias|alpha)$", name)]
    if not sizes or weights:
        such = f"weights such as {weights[0]}: is it a LoRA, for LoRA_path?" if weights else "no tensors"
        raise PriorError(f"{KEY} '{path}' holds no word but {such}" + ("" if weights else "."))
    for name, size in sizes.items():
        if len(size) not in (1, 2) or 0 in size:
            raise PriorError(
                f"{KEY} '{path}' has a tensor {name} of shape {size}, but a word's vectors must be [n, D] or [D]."
            )
    if len(sizes) > 1 and (nameless := [name for name in sizes if name in NAMELESS]):
        raise PriorError(
            f"{KEY} '{path}' has {len(sizes)} tensors, of which {nameless[0]} has no word, so it must be the only one."
        )
    if len({name.lower() for name in sizes}) < len(sizes):
        raise PriorError(f"{KEY} '{path}' has words that differ only in capitals, which CLIP does not read.")


def warn_of_unused_words(path: Path, words: Sequence[str], prompts: Sequence[str]) -> None:
    """Warn of the words that none of a run's prompts has, and show how one is used in the first prompt."""
    prompt, read = prompts[0], " ".join(prompts).lower()
    unused = [word for word in words if word.lower() not in read]
    if not unused:
        return
    example = f'--text "{prompt}, {unused[0]}"' if prompt else f'--text "a photo of {unused[0]}"'
    if len(words) == 1:
        logger.warning(
            "%s '%s' has no effect: its word %s is not in the prompt, as it would be with %s.",
            *(KEY, path, words[0], example),
        )
    else:
        logger.warning(
            "%s '%s' has %d words, of which the prompt lacks %s; %s would use the first of these.",
            *(KEY, path, len(words), ", ".join(unused), example),
        )


def learn_words(
    path: Path, words: Mapping[str, Tensor], tokenizer: CLIPTokenizer, encoder: CLIPTextModel
) -> Callable[[str], str]:
    """Give a tokenizer and its encoder the words, and return the spelling of prompts.

    A word of n vectors is spelt as n tokens: word, word_1, ... CLIP does not tell capitals.

    Raises: PriorError, one sentence, before anything is changed.
    """
    rows, width = _table(encoder).shape
    places = int(encoder.config.max_position_embeddings) - 2
    known = tokenizer.get_vocab()
    tokens = {word: [word, *(f"{word}_{i}" for i in range(1, len(words[word])))] for word in words}
    for word, vectors in words.items():
        if vectors.shape[1] != width:
            of = TEXT_WIDTHS.get(vectors.shape[1])
            raise PriorError(
                f"{KEY} '{path}' has vectors of {vectors.shape[1]} numbers for {word}{f', as {of} has' if of else ''}; "
                f"this model's text encoder has {width}."
            )
        if len(vectors) > places:
            raise PriorError(
                f"{KEY} '{path}' has {len(vectors)} vectors for {word}, but a prompt has room for {places} tokens."
            )
    every = [token for each in tokens.values() for token in each]
    if taken := next((token for token in every if token in known or every.count(token) > 1), None):
        raise PriorError(
            f"{KEY} '{path}' has the word {taken}, which the model's tokenizer has already; "
            f"another name for it is needed, such as <{taken.strip('<>')}-1>."
        )
    tokenizer.add_tokens(every)
    encoder.resize_token_embeddings(max(rows, len(tokenizer)), mean_resizing=False)
    table = _table(encoder)
    for word, vectors in words.items():
        table[tokenizer.convert_tokens_to_ids(tokens[word])] = vectors.to(table)
    spelt = {word.lower(): " ".join(tokens[word]) for word in words}
    longest_first = sorted(words, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)
    return lambda prompt: pattern.sub(lambda found: spelt.get(found[0].lower(), found[0]), prompt)


def _table(encoder: CLIPTextModel) -> Tensor:
    """Embeddings [tokens, D] of a text encoder, to be changed in place."""
    weight = encoder.get_input_embeddings().weight
    assert isinstance(weight, Tensor)
    return weight.data
