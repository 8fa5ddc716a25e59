"""Azimuth and polar angle to text embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from guidance.prompts import VIEW_WORDS, PromptEmbeddings, view_weights

FRONT, SIDE, BACK, OVERHEAD = torch.eye(4)


class Encoder:
    """Embeds a text as a table row of its own and remembers what it was asked."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    def embed(self, prompts: Sequence[str]) -> torch.Tensor:
        self.seen.append(list(prompts))
        return torch.randn(len(prompts), 5, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("azimuth", "expected"),
    [(0, FRONT), (90, SIDE), (-90, SIDE), (180, BACK), (-180, BACK), (360, FRONT), (270, SIDE), (540, BACK)],
)
def test_the_four_sides_are_exact(azimuth: float, expected: torch.Tensor) -> None:
    assert torch.equal(view_weights(torch.tensor([float(azimuth)]))[0], expected)


def test_weights_are_convex_continuous_and_mirrored() -> None:
    azimuth = torch.linspace(-180, 180, 721, dtype=torch.float64)
    weights = view_weights(azimuth)
    torch.testing.assert_close(weights.sum(-1), torch.ones(721).double())
    assert float(weights.min()) >= 0
    torch.testing.assert_close(weights, view_weights(-azimuth))
    assert float(weights.diff(dim=0).abs().max()) <= 0.5 / 90 + 1e-12
    quarter = view_weights(torch.tensor([45.0, 135.0]))
    torch.testing.assert_close(quarter, torch.stack([(FRONT + SIDE) / 2, (SIDE + BACK) / 2]))


def test_from_above_only_the_overhead_prompt_counts() -> None:
    weights = view_weights(torch.tensor([0.0, 0.0, 120.0]), torch.tensor([29.0, 30.0, 10.0]), 30.0)
    assert torch.equal(weights, torch.stack([OVERHEAD, FRONT, OVERHEAD]))


def test_embeddings_are_computed_once_and_mixed() -> None:
    encoder = Encoder()
    prompts = PromptEmbeddings(encoder, "a red mug", negative="ugly", inverse="blur", angle_overhead=20)
    views = ["a red mug" + words for words in VIEW_WORDS]
    table = Encoder().embed([""] * 6)
    azimuth, polar = torch.tensor([0.0, 45.0, 180.0, 77.0]), torch.tensor([90.0, 90.0, 90.0, 19.0])
    for _ in range(2):
        conditioning = prompts.at(azimuth, polar)
    assert encoder.seen == [[*views, "ugly", "blur"]]
    assert conditioning.has_negative
    assert torch.equal(conditioning.positive[0], table[0])
    torch.testing.assert_close(conditioning.positive[1], (table[0] + table[1]) / 2)
    assert torch.equal(conditioning.positive[2], table[2])
    assert torch.equal(conditioning.positive[3], table[3])
    assert torch.equal(conditioning.negative, table[4].expand(4, -1, -1))
    assert torch.equal(conditioning.unconditional, table[5].expand(4, -1, -1))


def test_without_a_negative_prompt() -> None:
    conditioning = PromptEmbeddings(Encoder(), "a red mug", negative=" ").at(
        torch.zeros(2), torch.zeros(2) + 90
    )
    assert not conditioning.has_negative
