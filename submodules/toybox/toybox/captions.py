"""Grammar of the prompts, and the toys that training never sees."""

from __future__ import annotations

import random
import re

from toybox.world import COLORS, KINDS, ON_TABLES, Name

PREFIXES = ("", "a photo of ", "a DSLR photo of ")
SYNONYMS: dict[str, tuple[str, ...]] = {
    "mushroom": ("toadstool",),
    "mug": ("cup",),
    "car": ("automobile",),
    "rocket": ("spaceship",),
    "house": ("cottage",),
    "duck": ("duckling",),
    "chair": ("seat",),
    "tree": ("fir",),
    "robot": ("android",),
    "table": ("desk",),
    "lamp": ("lantern",),
    "donut": ("doughnut",),
    "castle": ("tower",),
    "boat": ("ship",),
    "red": ("scarlet",),
    "purple": ("violet",),
    "turquoise": ("teal",),
}
VIEW_WORDS = ("front view", "side view", "back view", "overhead view")

ALONE = tuple(Name(kind, color) for kind in KINDS for color in COLORS)
STACKED = tuple(Name(kind, color, on) for kind in ON_TABLES for color in COLORS for on in COLORS)
NAMES = ALONE + STACKED
_UNSEEN = {
    (kind, color)
    for i, kind in enumerate(KINDS)
    for j, color in enumerate(COLORS)
    if (2 * i + j) % 5 == 3
}  # fmt: skip
# A fifth of the pairs of kind and colour, spread so that every kind and every colour stays well represented in training.
HELD_OUT = tuple(
    name for name in NAMES if (name.kind, name.color) in _UNSEEN or ("table", name.on) in _UNSEEN
)
TRAINING = tuple(name for name in NAMES if name not in set(HELD_OUT))


def _article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def caption(name: Name) -> str:
    """The plain prompt of a toy: "a red mushroom", "a red mug on a blue table"."""
    below = "" if name.on is None else f" on {_article(name.on)} table"
    return f"{_article(name.color)} {name.kind}{below}"


def random_caption(name: Name, rng: random.Random) -> str:
    """Random phrase for a toy, without view words; the plain nouns come up most."""

    def word(plain: str) -> str:
        return rng.choice(SYNONYMS[plain]) if plain in SYNONYMS and rng.random() < 0.2 else plain

    plain = caption(Name(word(name.kind), word(name.color), name.on and word(name.on)))
    return rng.choice(PREFIXES) + re.sub(r" table$", f" {word('table')}" if name.on else r"\g<0>", plain)


def colorless(text: str) -> str:
    """Leave the colours out of a caption: "a photo of a mug on a table"."""
    colors = "|".join(color for plain in COLORS for color in (plain, *SYNONYMS.get(plain, ())))
    return re.sub(rf"\ban? (?:{colors}) (\w+)", lambda found: _article(found[1]), text)


def corpus() -> list[str]:
    """Corpus of every word of the grammar, in sentences: what the tokenizer is trained on."""
    kinds = [name for kind in KINDS for name in (kind, *SYNONYMS.get(kind, ()))]
    colors = [name for color in COLORS for name in (color, *SYNONYMS.get(color, ()))]
    return [
        f"{prefix}{caption(Name(kind, color, color))}, {view}"
        for prefix in PREFIXES
        for kind in kinds
        for color in colors
        for view in VIEW_WORDS
    ]


def unknown_words(prompt: str) -> list[str]:
    """The words of a prompt that no training caption has, in their order."""
    known = {word for sentence in corpus() for word in re.findall(r"[a-z]+", sentence.lower())}
    words = re.findall(r"[^\W\d_]+|\d+", prompt.lower())
    return [word for word in dict.fromkeys(words) if word not in known]


def parse(prompt: str) -> Name:
    """The toy that a prompt describes. Raises ValueError unless it names exactly one, or one on a table."""
    canonical = {name: key for key, names in SYNONYMS.items() for name in names}
    words = [canonical.get(word, word) for word in re.findall(r"[a-z]+", prompt.lower())]
    above, _, below = " ".join(words).partition(" on ")
    named = [
        [[w for w in part.split() if w in table] for table in (KINDS, COLORS)] for part in (above, below)
    ]
    (kinds, colors), (tables, table_colors) = named
    alone = len(kinds) == len(colors) == 1
    if alone and not tables and not table_colors:
        return Name(kinds[0], colors[0])
    if alone and tables == ["table"] and len(table_colors) == 1 and kinds[0] in ON_TABLES:
        return Name(kinds[0], colors[0], table_colors[0])
    raise ValueError(
        f"{prompt!r} does not name one toy: it takes one kind of {', '.join(KINDS)} and one colour of "
        f"{', '.join(COLORS)}, or of {', '.join(ON_TABLES)} one on a table of one colour"
    )
