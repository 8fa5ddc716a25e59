"""What toybox can be asked for: the grammar of its prompts, and which pairs training never sees."""

from __future__ import annotations

import random
import re

from toybox.world import COLORS, KINDS

PREFIXES = ("", "a photo of ", "a DSLR photo of ")
SYNONYMS: dict[str, tuple[str, ...]] = {
    "mushroom": ("toadstool",),
    "mug": ("cup",),
    "car": ("automobile",),
    "rocket": ("spaceship",),
    "house": ("cottage",),
    "duck": ("duckling",),
    "chair": ("seat",),
    "red": ("scarlet",),
    "purple": ("violet",),
}
VIEW_WORDS = ("front view", "side view", "back view", "overhead view")

PAIRS = tuple((kind, color) for kind in KINDS for color in COLORS)
# A fifth, spread so that every kind and every colour stays well represented in training.
HELD_OUT = tuple(
    (kind, color)
    for i, kind in enumerate(KINDS)
    for j, color in enumerate(COLORS)
    if (2 * i + j) % 5 == 3
)  # fmt: skip
TRAINING = tuple(pair for pair in PAIRS if pair not in HELD_OUT)


def caption(kind: str, color: str) -> str:
    """The plain prompt of a toy: "a red mushroom"."""
    return f"{'an' if color[0] in 'aeiou' else 'a'} {color} {kind}"


def random_caption(kind: str, color: str, rng: random.Random) -> str:
    """One of the ways to ask for a toy, without view words; the plain nouns come up most."""

    def word(name: str) -> str:
        return rng.choice(SYNONYMS[name]) if name in SYNONYMS and rng.random() < 0.2 else name

    return rng.choice(PREFIXES) + caption(word(kind), word(color))


def corpus() -> list[str]:
    """Every word of the grammar, in sentences: what the tokenizer is trained on."""
    kinds = [name for kind in KINDS for name in (kind, *SYNONYMS.get(kind, ()))]
    colors = [name for color in COLORS for name in (color, *SYNONYMS.get(color, ()))]
    return [
        f"{prefix}{caption(k, c)}, {view}"
        for prefix in PREFIXES
        for k in kinds
        for c in colors
        for view in VIEW_WORDS
    ]


def unknown_words(prompt: str) -> list[str]:
    """The words of a prompt that no training caption has, in their order."""
    known = {word for sentence in corpus() for word in re.findall(r"[a-z]+", sentence.lower())}
    words = re.findall(r"[^\W\d_]+|\d+", prompt.lower())
    return [word for word in dict.fromkeys(words) if word not in known]


def parse(prompt: str) -> tuple[str, str]:
    """The (kind, colour) that a prompt asks for. Raises ValueError unless it names exactly one of each."""
    canonical = {name: key for key, names in SYNONYMS.items() for name in names}
    words = [canonical.get(word, word) for word in re.findall(r"[a-z]+", prompt.lower())]
    kinds, colors = ([word for word in words if word in table] for table in (KINDS, COLORS))
    if len(kinds) != 1 or len(colors) != 1:
        raise ValueError(
            f"{prompt!r} does not name one toy: it takes one kind of {', '.join(KINDS)} "
            f"and one colour of {', '.join(COLORS)}"
        )
    return kinds[0], colors[0]
