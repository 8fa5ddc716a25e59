"""ImageReward: how much people would like an asset's views for its prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from config import Config
from evaluation.assets import Asset, ScoredAsset, Scores
from evaluation.reward_network import RewardNetwork, load_reward_network
from evaluation.scorers.contract import Column, ScorerError, ScorerOptions
from evaluation.scorers.pixels import clip_pixels
from evaluation.scorers.weights import find_file, fingerprint, reason

if TYPE_CHECKING:
    from transformers import BertTokenizer

TOKENIZER = "google-bert/bert-base-uncased"
TEXT_LENGTH = 35
AT_ONCE = 16


class ImageRewardScorer:
    """The mean over the views of ImageReward (Xu et al., 2023), about a standard normal over its authors' images."""

    name = "image_reward"
    columns: tuple[Column, ...] = (Column("image_reward", "IR", ".3f", 1),)
    set_columns: tuple[Column, ...] = ()

    def __init__(self, network: RewardNetwork, tokenizer: BertTokenizer, device: torch.device) -> None:
        self.network, self.tokenizer, self.device = network.to(device), tokenizer, device
        self.identity = repr(("image_reward", fingerprint(network)))

    @classmethod
    def load(
        cls, options: ScorerOptions, prompts: Sequence[str], config: Config, device: torch.device
    ) -> ImageRewardScorer:
        """Load the scorer. Raises ScorerError, one sentence.

        The words are those of BERT base, from beside the weights or else from the hub.
        """
        path = find_file("image_reward", options.image_reward, "ImageReward.pt")
        try:
            return cls(load_reward_network(path), _tokenizer(path.parent), device)
        except ValueError as error:
            raise ScorerError(f"image_reward is {options.image_reward!r}, but {error}") from None

    @torch.no_grad()
    def rewards(self, images: Tensor, prompt: str) -> Tensor:
        """Rewards [V] on the host, of images [V, 3, H, W] in [0, 1]."""
        words = self.tokenizer(
            prompt, padding="max_length", truncation=True, max_length=TEXT_LENGTH, return_tensors="pt"
        ).to(self.device)
        found = []
        for some in images.split(AT_ONCE):
            pixels = clip_pixels(some.to(self.device), self.network.image_size)
            tokens, mask = (x.expand(len(some), -1) for x in (words.input_ids, words.attention_mask))
            found.append(self.network(pixels, tokens, mask))
        return torch.cat(found).cpu()

    def score(self, asset: Asset, views: Tensor) -> Scores:
        return Scores({"image_reward": float(self.rewards(views, asset.prompt).double().mean())})

    def score_set(self, assets: Sequence[ScoredAsset]) -> Mapping[str, float]:
        return {}


def _tokenizer(folder: Path) -> BertTokenizer:
    from transformers import BertTokenizer

    here = any((folder / name).is_file() for name in ("vocab.txt", "tokenizer.json"))
    try:
        return BertTokenizer.from_pretrained(folder if here else TOKENIZER)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"its words cannot be loaded ({reason(error)}); put vocab.txt of {TOKENIZER} beside the weights."
        ) from None
