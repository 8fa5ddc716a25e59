"""Contract of a scorer: its options, and the heads of its columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from config import Config
from evaluation.assets import Asset, ScoredAsset, Scores


class ScorerError(Exception):
    """Error of a scorer that cannot be loaded; the message is one sentence for the user."""


@dataclass(frozen=True)
class Column:
    """Head of a column.

    key: its name in JSON; heading: in tables; form: a format specification (".2f", ".0%"); better: 1 if
    higher is better, -1 if lower is, 0 if neither.
    """

    key: str
    heading: str
    form: str
    better: int


@dataclass(frozen=True)
class ScorerOptions:
    """Weights by hub id or local path, and the images that FID compares with.

    clip: a folder or hub id in transformers' layout; inception: pytorch-fid's file or its address; image_reward: the file
    ImageReward.pt, a folder or hub id that has it; fid_images: how many images of the prior (toybox: renders of all toys)
    FID compares with; images: where the prior's images are kept.
    """

    clip: str = "openai/clip-vit-large-patch14"
    inception: str = (
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
        "pt_inception-2015-12-05-6726825d.pth"
    )
    image_reward: str = "zai-org/ImageReward"
    fid_images: int = 5_000
    images: Path = Path("outputs/prior_images")


class Scorer(Protocol):
    """Scorer that looks at one asset at a time, and then perhaps at what it saw of a set of them.

    Attributes:
        name: its name on the command line.
        columns: the numbers of one asset.
        set_columns: the numbers of a set of assets; () for most.
        identity: all that its scores depend on besides the asset: weights, options, prompt pool.
    """

    name: str
    columns: tuple[Column, ...]
    set_columns: tuple[Column, ...]
    identity: str

    @classmethod
    def load(
        cls, options: ScorerOptions, prompts: Sequence[str], config: Config, device: torch.device
    ) -> Scorer:
        """Load the scorer, with the arguments of `scorers.load`. Raises ScorerError, one sentence, if it
        cannot be had.
        """

    def score(self, asset: Asset, views: Tensor) -> Scores:
        """Score an asset by views [V, 3, H, W] in [0, 1] on white, on the host."""

    def score_set(self, assets: Sequence[ScoredAsset]) -> Mapping[str, float]:
        """Score a set, by the keys of `set_columns`; {} for a scorer without."""
