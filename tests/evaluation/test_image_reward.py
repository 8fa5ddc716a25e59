"""ImageReward on transformers' BLIP against the formulas of BLIP and BERT, written out over the published names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.reward_network import load_reward_network
from evaluation.scorers.image_reward import TEXT_LENGTH, ImageRewardScorer
from evaluation.scorers.pixels import clip_pixels
from tests.evaluation.published import reward_weights, tiny_reward_sizes, words, write_image_reward

HOST = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_reward(tmp_path_factory.mktemp("reward"), tiny_reward_sizes())


@pytest.fixture(scope="module")
def scorer(folder: Path) -> ImageRewardScorer:
    network = load_reward_network(folder / "ImageReward.pt", tiny_reward_sizes())
    return ImageRewardScorer(network, words(folder), HOST)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(1))


class Written:
    """The formulas for one image [3, 32, 32] and one text [L] at a time, in float64."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.weights = {name: value.double() for name, value in weights.items() if value.is_floating_point()}

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        spread = (x.var(dim=-1, unbiased=False, keepdim=True) + eps).sqrt()
        x = (x - x.mean(dim=-1, keepdim=True)) / spread
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int = 2) -> Tensor:
        mixed = []
        for a, b, c in zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1)):
            mixed.append((a @ b.T / a.shape[-1] ** 0.5).softmax(dim=-1) @ c)
        return torch.cat(mixed, dim=-1)

    def seen(self, image: Tensor, layers: int) -> Tensor:
        eye = "blip.visual_encoder"
        kernel = self.weights[f"{eye}.patch_embed.proj.weight"]
        patches = [
            (kernel * image[:, 16 * i : 16 * (i + 1), 16 * j : 16 * (j + 1)]).sum(dim=(1, 2, 3))
            for i in range(2)
            for j in range(2)
        ]
        x = torch.stack(patches) + self.weights[f"{eye}.patch_embed.proj.bias"]
        x = torch.cat([self.weights[f"{eye}.cls_token"][0], x]) + self.weights[f"{eye}.pos_embed"][0]
        for i in range(layers):
            block = f"{eye}.blocks.{i}"
            qkv = self.linear(f"{block}.attn.qkv", self.norm(f"{block}.norm1", x, 1e-6))
            x = x + self.linear(f"{block}.attn.proj", self.attend(*qkv.chunk(3, dim=-1)))
            hidden = F.gelu(self.linear(f"{block}.mlp.fc1", self.norm(f"{block}.norm2", x, 1e-6)))
            x = x + self.linear(f"{block}.mlp.fc2", hidden)
        return self.norm(f"{eye}.norm", x, 1e-6)

    def read(self, tokens: list[int], seen: Tensor, layers: int) -> Tensor:
        """State [D] of the first of a text's tokens, which have no padding."""
        start = "blip.text_encoder.embeddings"
        x = self.weights[f"{start}.word_embeddings.weight"][tokens]
        x = x + self.weights[f"{start}.position_embeddings.weight"][: len(tokens)]
        x = self.norm(f"{start}.LayerNorm", x, 1e-12)
        for i in range(layers):
            layer = f"blip.text_encoder.encoder.layer.{i}"
            for part, looked_at in (("attention", None), ("crossattention", seen)):
                y = x if looked_at is None else looked_at
                q, k, v = (
                    self.linear(f"{layer}.{part}.self.{name}", of)
                    for name, of in (("query", x), ("key", y), ("value", y))
                )
                out = self.linear(f"{layer}.{part}.output.dense", self.attend(q, k, v))
                x = self.norm(f"{layer}.{part}.output.LayerNorm", x + out, 1e-12)
            hidden = F.gelu(self.linear(f"{layer}.intermediate.dense", x))
            x = self.norm(
                f"{layer}.output.LayerNorm", x + self.linear(f"{layer}.output.dense", hidden), 1e-12
            )
        return x[0]

    def reward(self, image: Tensor, tokens: list[int]) -> float:
        x = self.read(tokens, self.seen(image.double(), 2), 2)
        for index in (0, 2, 4, 6, 7):
            x = self.linear(f"mlp.layers.{index}", x)
        return (float(x) - 0.16717362830052426) / 1.0333394966054072


def test_rewards_are_those_of_the_written_formulas(scorer: ImageRewardScorer, images: Tensor) -> None:
    written = Written(reward_weights(*tiny_reward_sizes()))
    prompt = "a photo of a red car"
    tokens = scorer.tokenizer(prompt).input_ids
    assert len(tokens) == 2 + len(prompt.split())
    expected = [written.reward(image, tokens) for image in clip_pixels(images, 32)]
    assert scorer.rewards(images, prompt).tolist() == pytest.approx(expected, rel=1e-4)
    assert max(expected) - min(expected) > 1e-3 * max(map(abs, expected))


def test_what_is_past_35_tokens_is_not_read(scorer: ImageRewardScorer, images: Tensor) -> None:
    long = " ".join(["red"] * (TEXT_LENGTH - 2))
    kept = scorer.rewards(images, long)
    torch.testing.assert_close(scorer.rewards(images, long + " blue house"), kept)
    assert not torch.allclose(scorer.rewards(images, long[: -len("red")] + "blue"), kept)


def test_many_views_are_scored_as_one_by_one(scorer: ImageRewardScorer) -> None:
    many = torch.rand(17, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    alone = torch.cat([scorer.rewards(image[None], "a blue mug") for image in many])
    torch.testing.assert_close(scorer.rewards(many, "a blue mug"), alone)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda weights: weights.pop("mlp.layers.7.bias"), "reward.7.bias"),
        (lambda weights: weights.update({"mlp.layers.9.bias": torch.zeros(1)}), "reward.9.bias"),
        (lambda weights: weights.update({"mlp.layers.7.bias": torch.zeros(2)}), "reward.7.bias"),
    ],
)
def test_a_file_with_other_weights_is_refused(tmp_path: Path, change: object, said: str) -> None:
    weights = reward_weights(*tiny_reward_sizes())
    change(weights)  # type: ignore[operator]
    torch.save(weights, tmp_path / "ImageReward.pt")
    with pytest.raises(ValueError, match=rf"ImageReward \(.*{said}.*\)\.$"):
        load_reward_network(tmp_path / "ImageReward.pt", tiny_reward_sizes())


@pytest.mark.parametrize("content", [b"", b"<html>Not found</html>", b"version https://git-lfs"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ImageReward.pt").write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as weights of ImageReward"):
        load_reward_network(tmp_path / "ImageReward.pt", tiny_reward_sizes())
