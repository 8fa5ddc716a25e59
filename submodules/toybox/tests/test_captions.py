"""The grammar of the prompts, and the tokenizer made from it."""

from __future__ import annotations

import random

import pytest

from toybox.captions import NAMES, VIEW_WORDS, caption, corpus, parse, random_caption, unknown_words
from toybox.lab.models import MAX_TOKENS, build_tokenizer
from toybox.world import Name


def test_every_random_caption_parses_to_its_toy() -> None:
    rng = random.Random(0)
    for name in NAMES:
        for _ in range(20):
            assert parse(random_caption(name, rng)) == name


def test_articles() -> None:
    assert caption(Name("mug", "orange")) == "an orange mug"
    assert caption(Name("mug", "red", "orange")) == "a red mug on an orange table"


def test_view_words_are_those_of_the_prompts() -> None:
    from guidance import prompts

    assert tuple(", " + words for words in VIEW_WORDS) == prompts.VIEW_WORDS


@pytest.mark.parametrize(
    "prompt",
    [
        "a red dragon",
        "a mug",
        "a red mug on a blue car",
        "a red car on a blue table",
        "a red mug on a table",
        "",
    ],
)
def test_a_prompt_that_names_no_single_toy_is_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match="does not name one toy"):
        parse(prompt)


def test_unknown_words_are_named_once_and_in_order() -> None:
    assert unknown_words("A zebra riding a red car, zebra") == ["zebra", "riding"]
    assert unknown_words("a DSLR photo of a violet spaceship, back view") == []


def test_every_known_word_is_one_token_and_letters_spell_the_others() -> None:
    tokenizer = build_tokenizer()
    for sentence in corpus():
        words = sentence.replace(",", " ,").split()
        assert len(tokenizer(sentence).input_ids) == len(words) + 2 <= MAX_TOKENS
    unknown = tokenizer.convert_ids_to_tokens(tokenizer("zx").input_ids)
    assert unknown[1:-1] == ["z", "x</w>"]
