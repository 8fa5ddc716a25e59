"""What toybox's judge and the truth say of an asset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from config import Config
from evaluation.assets import Asset, ScoredAsset, Scores
from evaluation.scorers.contract import Column, ScorerOptions


class ToyboxScorer:
    """`toybox.assess`, and the Fréchet distance in the judge's features to renders of the true toys."""

    name = "toybox"
    columns: tuple[Column, ...] = (
        Column("recognised", "judge", ".0%", 1),
        Column("janus", "Janus", ".1%", -1),
        Column("psnr", "PSNR", ".1f", 1),
        Column("chamfer", "Chamfer", ".1f", -1),
    )
    set_columns: tuple[Column, ...] = (Column("judge_fid", "FID", ".0f", -1),)

    def __init__(self) -> None:
        from toybox.judge import load_judge

        self.judge = load_judge()
        self.identity = "toybox"

    @classmethod
    def load(
        cls, options: ScorerOptions, prompts: Sequence[str], config: Config, device: torch.device
    ) -> ToyboxScorer:
        return cls()

    def score(self, asset: Asset, views: Tensor) -> Scores:
        from toybox.assess import assess

        found = assess(asset.gaussians, asset.prompt, asset.config, self.judge)
        numbers = {column.key: float(getattr(found, column.key)) for column in self.columns}
        return Scores(numbers, found.features)

    def score_set(self, assets: Sequence[ScoredAsset]) -> Mapping[str, float]:
        return {}
