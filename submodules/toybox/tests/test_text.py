"""Meanings of words that add up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import ZImagePipeline
from transformers import CLIPTextModel, CLIPTokenizer

from toybox import weights_path
from toybox.captions import NAMES, VIEW_WORDS, caption
from toybox.lab import train_text
from toybox.lab.models import build_text_encoder, build_tokenizer
from toybox.lab.train_text import SLOTS, meanings, said, target, tokens
from toybox.world import COLORS, KINDS, Name


def entries(kind: str | None, color: str | None, on: str | None, view: str | None) -> tuple[int, ...]:
    return tuple(slot.index(word) for slot, word in zip(SLOTS, (kind, color, on, view)))


def test_what_was_said_so_far() -> None:
    states = said("a scarlet cup on a blue desk, side view")
    expected = [
        *[(None, None, None, None)] * 2, (None, "red", None, None), *[("mug", "red", None, None)] * 3,
        *[("mug", "red", "blue", None)] * 3, *[("mug", "red", "blue", "side view")] * 2,
    ]  # fmt: skip
    assert states == [entries(*words) for words in expected]
    assert said("a blue table")[-1] == entries("table", "blue", None, None)
    assert said("") == [entries(None, None, None, None)]


def test_meanings_are_orthogonal_and_their_sums_are_as_a_layer_norm_leaves_them() -> None:
    vectors = torch.cat(meanings())
    assert len(vectors) == len(KINDS) + 2 * len(COLORS) + len(VIEW_WORDS) + 4
    products = vectors @ vectors.T
    assert torch.allclose(products, torch.eye(len(vectors)) * products[0, 0], atol=1e-4)
    sums = target([caption(name) for name in NAMES], 16, meanings())
    assert torch.allclose(sums.mean(dim=-1), torch.zeros(()), atol=1e-5)
    assert torch.allclose(sums.var(dim=-1, correction=0), torch.ones(()), atol=1e-4)


def test_the_shipped_encoder_says_of_every_toy_what_its_words_add_up_to() -> None:
    tokenizer = CLIPTokenizer.from_pretrained(weights_path() / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(weights_path() / "text_encoder", dtype=torch.float32)
    texts = [caption(name) + f", {VIEW_WORDS[i % 4]}" for i, name in enumerate(NAMES)]
    with torch.no_grad():
        found = encoder(tokens(tokenizer, texts)).last_hidden_state
    assert float((found - target(texts, found.shape[1], meanings())).square().mean()) < 1e-3


def test_the_flows_encoder_is_read_as_its_pipeline_does() -> None:
    """Through the last layer but one, behind the template of its tokenizer, up to each text's own end."""
    pipeline = ZImagePipeline.from_pretrained(
        weights_path() / "flow", vae=None, transformer=None, torch_dtype=torch.float32
    )
    texts = [caption(name) + f", {VIEW_WORDS[i % 4]}" for i, name in enumerate(NAMES[::20])]
    with torch.no_grad():
        found, _ = pipeline.encode_prompt([*texts], "cpu", do_classifier_free_guidance=False)
    for text, embedded in zip(texts, found):
        wanted = target([text], len(embedded), meanings())[0]
        assert len(embedded) == len(text.replace(",", " ,").split()) + 2
        assert float((embedded - wanted).square().mean()) < 2e-3


@pytest.mark.thorough
def test_training_descends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_text, "STEPS", 60)
    monkeypatch.setattr(train_text, "BATCH", 32)
    tokenizer = build_tokenizer()
    encoder = train_text.train_text(
        build_text_encoder, lambda model, ids: model(ids).last_hidden_state, tokenizer, tmp_path, seed=0
    )
    texts = [caption(Name("mug", "red", color)) for color in COLORS]
    with torch.no_grad():
        found = encoder(tokens(tokenizer, texts)).last_hidden_state
    assert float((found - target(texts, found.shape[1], meanings())).square().mean()) < 0.7
