"""Text embeddings by azimuth and polar angle."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from guidance.camera_condition import camera_matrices
from guidance.condition import Condition
from guidance.prompts import VIEW_WORDS, PerpNeg, PromptEmbeddings, view_weights

FRONT, SIDE, BACK, OVERHEAD = torch.eye(4)


class Encoder:
    """Encoder that embeds each text as a table row of its own and remembers the texts."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    def embed(self, prompts: Sequence[str]) -> Condition:
        self.seen.append(list(prompts))
        return Condition(
            {"text": torch.randn(len(prompts), 5, 3, generator=torch.Generator().manual_seed(0))}
        )


@pytest.mark.parametrize(
    ("azimuth", "expected"),
    [(0, FRONT), (90, SIDE), (-90, SIDE), (180, BACK), (-180, BACK), (360, FRONT), (270, SIDE), (540, BACK)],
)
def test_the_four_sides_are_exact(azimuth: float, expected: Tensor) -> None:
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
    table = Encoder().embed([""] * 6).parts["text"]
    azimuth, polar = torch.tensor([0.0, 45.0, 180.0, 77.0]), torch.tensor([90.0, 90.0, 90.0, 19.0])
    for _ in range(2):
        conditioning = prompts.at(azimuth, polar)
    assert encoder.seen == [[*views, "ugly", "blur"]]
    assert conditioning.has_negative
    assert torch.equal(conditioning.positive.parts["text"][0], table[0])
    torch.testing.assert_close(conditioning.positive.parts["text"][1], (table[0] + table[1]) / 2)
    assert torch.equal(conditioning.positive.parts["text"][2], table[2])
    assert torch.equal(conditioning.positive.parts["text"][3], table[3])
    assert torch.equal(conditioning.negative.parts["text"], table[4].expand(4, -1, -1))
    assert torch.equal(conditioning.unconditional.parts["text"], table[5].expand(4, -1, -1))


def test_without_a_negative_prompt() -> None:
    conditioning = PromptEmbeddings(Encoder(), "a red mug", negative=" ").at(
        torch.zeros(2), torch.zeros(2) + 90
    )
    assert not conditioning.has_negative


def weights_read_again(
    azimuth: float, w: float, front_decay: float, side_decay: float
) -> tuple[float, float]:
    """Perp-Neg's weights of the front and the side prompt, number by number, for azimuth in [-180, 180)."""
    phi = abs(azimuth)
    if phi <= 90:
        r = 1 - phi / 90
        front = 0.0 if r > 0.8 else math.exp(-r * front_decay) * w
        side = 0.0 if r < 0.2 else math.exp(-(1 - r) * side_decay) * w
    else:
        r = 1 - (phi - 90) / 90
        front = w
        side = 0.0 if r > 0.8 else math.exp(-r * side_decay) * w / 2
    return front, side


@given(
    azimuth=st.floats(-180, 179.9)
    | st.sampled_from([-180.0, -90.0, -17.9, 0.0, 18.1, 71.9, 72.1, 90.0, 108.1]),
    w=st.floats(-5, -0.1),
    front_decay=st.floats(0, 10),
    side_decay=st.floats(0, 10),
    turns=st.integers(-2, 2),
)
def test_perp_neg_weights(
    azimuth: float, w: float, front_decay: float, side_decay: float, turns: int
) -> None:
    """Azimuths keep away from the thresholds r = 0.2 and r = 0.8, which rounding may put on either side."""
    r = 1 - (abs(azimuth) % 90) / 90
    assume(min(abs(r - 0.2), abs(r - 0.8)) > 1e-6)
    seen_from = torch.tensor([azimuth + 360.0 * turns], dtype=torch.float64)
    actual = PerpNeg(w, front_decay, side_decay).weights(seen_from)[0].tolist()
    assert actual == pytest.approx(weights_read_again(azimuth, w, front_decay, side_decay), rel=1e-9)


def test_perp_neg_weights_at_the_four_sides() -> None:
    """The front pushes off from the side and everything else from the front, by the defaults -2, 2 and 10."""
    front, side, back, left = PerpNeg().weights(torch.tensor([0.0, 90.0, 180.0, -90.0])).double().tolist()
    assert front == pytest.approx([0, -2])
    assert side == left == pytest.approx([-2, 0])
    assert back == pytest.approx([-2, -1])


def test_perp_negatives_are_those_that_count() -> None:
    prompts = PromptEmbeddings(Encoder(), "a red mug", perp_neg=PerpNeg())
    # Front, side, back, and the back from above.
    azimuth, polar = torch.tensor([0.0, 90.0, 180.0, 180.0]), torch.tensor([90.0, 90.0, 90.0, 10.0])
    front, side = prompts.at(azimuth, polar).perp_negatives
    table = Encoder().embed([""] * 6).parts["text"]
    assert front.views.tolist() == [1, 2]
    assert side.views.tolist() == [0, 2]
    torch.testing.assert_close(front.weights, torch.tensor([-2.0, -2.0]))
    torch.testing.assert_close(side.weights, torch.tensor([-2.0, -1.0]))
    assert torch.equal(front.condition.parts["text"], table[[0, 0]])
    assert torch.equal(side.condition.parts["text"], table[[1, 1]])


@pytest.mark.parametrize(
    ("perp_neg", "polar"), [(None, 90.0), (PerpNeg(negative_w=0.0), 90.0), (PerpNeg(), 29.0)]
)
def test_perp_negatives_that_do_not_count_are_left_out(perp_neg: PerpNeg | None, polar: float) -> None:
    """A U-Net has nothing to evaluate without Perp-Neg, at no weight, and from above."""
    prompts = PromptEmbeddings(Encoder(), "a red mug", perp_neg=perp_neg)
    assert prompts.at(torch.linspace(-180, 150, 12), torch.full((12,), polar)).perp_negatives == ()


def test_some_of_the_views() -> None:
    prompts = PromptEmbeddings(Encoder(), "a red mug", negative="ugly", perp_neg=PerpNeg())
    azimuth, polar = torch.tensor([0.0, 45.0, 180.0]), torch.full((3,), 90.0)
    some = prompts.at(azimuth, polar).some(torch.tensor([2, 0]))
    alone = prompts.at(azimuth[[2, 0]], polar[[2, 0]])
    for name in ("positive", "negative", "unconditional"):
        assert torch.equal(getattr(some, name).parts["text"], getattr(alone, name).parts["text"])
    for name in ("has_negative", "negative_is_unconditional"):
        assert getattr(some, name) == getattr(alone, name)
    assert some.perp_negatives == ()


@pytest.mark.parametrize(
    ("negative", "inverse", "has_negative", "same"),
    [
        ("", "", False, True),
        ("ugly", "", True, False),
        ("ugly", "ugly", True, True),
        ("", "blur", False, False),
    ],
)
def test_which_prompts_are_the_same(negative: str, inverse: str, has_negative: bool, same: bool) -> None:
    prompts = PromptEmbeddings(Encoder(), "a red mug", negative=negative, inverse=inverse)
    conditioning = prompts.at(torch.zeros(1), torch.full((1,), 90.0))
    assert (conditioning.has_negative, conditioning.negative_is_unconditional) == (has_negative, same)


def test_a_set_of_views_has_one_prompt_and_its_cameras() -> None:
    encoder = Encoder()
    prompts = PromptEmbeddings(encoder, "a red mug", negative="ugly", perp_neg=PerpNeg(), views_per_set=4)
    assert encoder.seen == [["a red mug", "ugly", ""]]
    azimuth, polar = torch.tensor([10.0, 100.0, 190.0, 280.0] * 2), torch.tensor([75.0] * 4 + [60.0] * 4)
    conditioning = prompts.at(azimuth, polar)
    assert conditioning.perp_negatives == ()
    for row, condition in enumerate(
        (conditioning.positive, conditioning.negative, conditioning.unconditional)
    ):
        assert torch.equal(condition.parts["text"], Encoder().embed([""] * 3).parts["text"][[row, row]])
        assert torch.equal(condition.parts["camera"].flatten(0, 1), camera_matrices(azimuth, polar))
    mirrored = prompts.at(azimuth, polar, mirrored=True).positive.parts["camera"].flatten(0, 1)
    assert torch.equal(mirrored, camera_matrices(-azimuth, polar))


def test_cameras_are_told_as_to_mvdream() -> None:
    """Its authors take OpenGL's world, y up, turn it to z up, and have the front at an azimuth of 90 degrees."""
    azimuth, polar = torch.tensor([0.0, 30.0, 200.0]), torch.tensor([90.0, 60.0, 100.0])
    found = camera_matrices(azimuth, polar).unflatten(1, (4, 4))
    turned = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    for matrix, phi, theta in zip(found, azimuth, polar):
        turn, rise = torch.deg2rad(phi + 90), torch.deg2rad(90 - theta)
        position = torch.stack([rise.cos() * turn.sin(), rise.sin(), rise.cos() * turn.cos()])
        right = torch.nn.functional.normalize(torch.linalg.cross(-position, torch.tensor([0.0, 1, 0])), dim=0)
        expected = torch.stack([right, torch.linalg.cross(right, -position), position, position], 1)
        torch.testing.assert_close(matrix[:3], turned @ expected)
        assert matrix[3].tolist() == [0, 0, 0, 1]
    # From above there is no azimuth to see, and the matrix is a rotation all the same.
    [above] = camera_matrices(torch.zeros(1), torch.zeros(1)).unflatten(1, (4, 4))
    torch.testing.assert_close(above[:3, :3] @ above[:3, :3].T, torch.eye(3))
