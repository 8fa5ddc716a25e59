"""Scorers by name: how each judges an asset's views, and which of them can be loaded here."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from config import Config
from evaluation.scorers.clip import ClipScorer
from evaluation.scorers.contract import Column, Scorer, ScorerError, ScorerOptions
from evaluation.scorers.fid import FidScorer
from evaluation.scorers.image_reward import ImageRewardScorer
from evaluation.scorers.toybox import ToyboxScorer

__all__ = ["SCORERS", "Column", "Scorer", "ScorerError", "ScorerOptions", "load"]


SCORERS: dict[str, type[Scorer]] = {
    "clip": ClipScorer,
    "fid": FidScorer,
    "image_reward": ImageRewardScorer,
    "toybox": ToyboxScorer,
}


def load(
    names: Sequence[str],
    options: ScorerOptions,
    prompts: Sequence[str],
    config: Config,
    device: torch.device,
) -> tuple[list[Scorer], dict[str, str]]:
    """The scorers of `names`, and why the others cannot be had: name -> one sentence.

    prompts: the pool of R-Precision, and what the prior's images show; config: whose prior that is.
    Raises ValueError for a name that is none of SCORERS.
    """
    unknown = [name for name in names if name not in SCORERS]
    if unknown:
        raise ValueError(f"scorers is {unknown[0]!r}, but it must be among {', '.join(SCORERS)}.")
    loaded: list[Scorer] = []
    skipped: dict[str, str] = {}
    for name in dict.fromkeys(names):
        try:
            loaded.append(SCORERS[name].load(options, prompts, config, device))
        except ScorerError as error:
            skipped[name] = str(error)
    return loaded, skipped
