"""Train the text encoder, before anything that reads it: the meanings of a prompt's words add up in every
token.

Trained beside a denoiser, it may mix kind and colour in any way that suits the pairs in training, and held-out pairs come out
as others. Here a prompt's embedding is by construction the sum of what its kind, its colour, its table and its view
mean, so that a denoiser that knows the parts knows their sum.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTokenizer, PreTrainedModel

from toybox.captions import NAMES, SYNONYMS, VIEW_WORDS, random_caption
from toybox.lab.fit import Schedule, fit
from toybox.lab.models import TEXT_WIDTH
from toybox.world import COLORS, KINDS

STEPS, BATCH = 2500, 128
VIEW_SHARE, EMPTY_SHARE = 0.75, 0.05

SLOTS = ((None, *KINDS), (None, *COLORS), (None, *COLORS), (None, *VIEW_WORDS))
"""Slots of a prompt, and what each may hold, None until it is named: a kind, its colour, the colour of the
table below, a view.
"""


def meanings() -> list[Tensor]:
    """Vectors of each slot's entries, [entries, TEXT_WIDTH]: all orthogonal, of mean 0 and of such a length
    that a sum of one from each slot has variance 1, as a layer norm leaves it.
    """
    count = sum(map(len, SLOTS))
    random_vectors = np.random.default_rng(0).standard_normal((TEXT_WIDTH, count))
    basis, _ = np.linalg.qr(np.column_stack([np.ones(TEXT_WIDTH), random_vectors]))
    rows = torch.from_numpy(basis[:, 1:].T).float() * (TEXT_WIDTH / len(SLOTS)) ** 0.5
    return list(rows.split([len(slot) for slot in SLOTS]))


def said(text: str) -> list[tuple[int, int, int, int]]:
    """Entries of each slot that a prompt has named so far, before its first word and after each word."""
    canonical = {name: key for key, names in SYNONYMS.items() for name in names}
    words = [canonical.get(word, word) for word in re.findall(r"[a-z]+|,", text.lower())]
    kind = color = table = view = 0
    below = False
    states = [(kind, color, table, view)]
    for word in words:
        below = below or (word == "on" and kind > 0)
        if word in KINDS and not below:
            kind = 1 + list(KINDS).index(word)
        elif word in COLORS and below:
            table = 1 + list(COLORS).index(word)
        elif word in COLORS:
            color = 1 + list(COLORS).index(word)
        elif f"{word} view" in VIEW_WORDS:
            view = 1 + VIEW_WORDS.index(f"{word} view")
        states.append((kind, color, table, view))
    return states


def target(texts: list[str], length: int, vectors: list[Tensor]) -> Tensor:
    """Target [B, length, TEXT_WIDTH]: after every token the sum of what was named; from the end token on, of
    all that was.
    """
    states = [said(text) for text in texts]
    padded = torch.tensor([(*s, *[s[-1]] * (length - len(s))) for s in states])
    return sum((vectors[slot][padded[..., slot]] for slot in range(len(vectors))), torch.zeros(()))


def random_prompt(rng: random.Random) -> str:
    """A prompt of any toy, held out or not: these are words alone."""
    if rng.random() < EMPTY_SHARE:
        return ""
    prompt = random_caption(rng.choice(NAMES), rng)
    return f"{prompt}, {rng.choice(VIEW_WORDS)}" if rng.random() < VIEW_SHARE else prompt


def tokens(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Tokens [B, MAX_TOKENS] of the texts."""
    return tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids


Encoder = TypeVar("Encoder", bound=PreTrainedModel)


def train_text(
    build: Callable[[CLIPTokenizer], Encoder],
    embed: Callable[[Encoder, Tensor], Tensor],
    tokenizer: CLIPTokenizer,
    folder: Path,
    seed: int,
    name: str = "text",
) -> Encoder:
    """Train the encoder that `build` makes, so that embed(encoder, tokens) is what the words add up to."""
    torch.manual_seed(seed)
    encoder, vectors = build(tokenizer), meanings()

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        words = random.Random(int(torch.randint(2**31, (), generator=rng)))
        texts = [random_prompt(words) for _ in range(BATCH)]
        ids = tokens(tokenizer, texts)
        wanted = target(texts, ids.shape[1], vectors)
        error = (embed(encoder, ids) - wanted).square()
        return error.mean(), {"end": error[:, -1].mean().detach()}

    fit(name, encoder, loss, Schedule(STEPS, lr=2e-3, warmup=100, weight_decay=0.0), folder, seed)
    return encoder
