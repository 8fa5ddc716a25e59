"""TODO"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from config import Config
from evaluation.assets import Asset, ScoredAsset, Scores
from evaluation.scorers.contract import Column, ScorerError, ScorerOptions


class FidScorer:
    name = "fid"
    columns: tuple[Column, ...] = ()
    set_columns: tuple[Column, ...] = (Column("fid", "FID", ".1f", -1),)

    def __init__(self) -> None:
        self.identity = ""

    @classmethod
    def load(
        cls, options: ScorerOptions, prompts: Sequence[str], config: Config, device: torch.device
    ) -> FidScorer:
        raise ScorerError("not written yet.")

    def score(self, asset: Asset, views: Tensor) -> Scores:
        return Scores({})

    def score_set(self, assets: Sequence[ScoredAsset]) -> Mapping[str, float]:
        return {}
