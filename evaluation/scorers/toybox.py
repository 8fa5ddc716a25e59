"""Scores of an asset by toybox's judge and by the truth."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from config import Config
from config.camera_params import GenerateCamParams
from config.model_params import PipelineParams
from evaluation.assets import Asset, Features, ScoredAsset, Scores
from evaluation.frechet import Moments, frechet_distance
from evaluation.scorers.contract import Column, ScorerError, ScorerOptions
from evaluation.scorers.weights import fingerprint
from gaussian_renderer.showcase import NUM_VIEWS, views_of

if TYPE_CHECKING:
    from toybox.judge import Judge
    from toybox.world import Name


class ToyboxScorer:
    """Scorer by `toybox.lab.assess`, and by the Fréchet distance in the judge's features.

    That is taken once to the views of the same prompts' true toys, and once, as FID has it, to at least
    `fid_images` renders of all toys, whose moments are kept.
    """

    name = "toybox"
    columns: tuple[Column, ...] = (
        Column("recognised", "judge", ".0%", 1),
        Column("psnr", "PSNR", ".1f", 1),
        Column("chamfer", "Chamfer", ".1f", -1),
        Column("janus", "Janus", ".1%", -1),
        Column("orientation", "off front, °", ".0f", -1),
        Column("speckle", "speckle", ".2f", -1),
    )
    set_columns: tuple[Column, ...] = (
        Column("judge_fid", "FID (judge)", ".0f", -1),
        Column("judge_fid_all_toys", "FID (judge), all toys", ".0f", -1),
    )

    def __init__(self, judge: Judge, fid_images: int, folder: Path) -> None:
        self.judge, self._count, self._folder = judge, fid_images, folder
        self.identity = repr(("toybox", [column.key for column in self.columns], fingerprint(judge)))
        self._features: dict[object, Features] = {}
        self._moments: dict[object, Moments] = {}

    @classmethod
    def load(
        cls, options: ScorerOptions, prompts: Sequence[str], config: Config, device: torch.device
    ) -> ToyboxScorer:
        """Load the scorer. Raises ScorerError, one sentence."""
        try:
            from toybox.captions import parse
            from toybox.judge import load_judge
        except ModuleNotFoundError:
            raise ScorerError("toybox is not installed here; run pip install submodules/toybox.") from None
        try:
            for prompt in prompts:
                parse(prompt)
        except ValueError as error:
            raise ScorerError(f"{error}.") from None
        return cls(load_judge(), options.fid_images, options.images)

    def score(self, asset: Asset, views: Tensor) -> Scores:
        from toybox.lab.assess import assess

        found = assess(asset.gaussians, asset.prompt, asset.config, self.judge, views)
        return Scores(
            {column.key: float(getattr(found, column.key)) for column in self.columns}, found.features
        )

    def score_set(self, assets: Sequence[ScoredAsset]) -> Mapping[str, float]:
        found = Moments.of(np.concatenate([asset.features for asset in assets]))
        true = [self._features_of_toy(asset.prompt, asset.config) for asset in assets]
        return {
            "judge_fid": frechet_distance(found, Moments.of(np.concatenate(true))),
            "judge_fid_all_toys": frechet_distance(found, self._moments_of_all_toys(assets[0].config)),
        }

    def _features_of_toy(self, prompt: str, config: Config) -> Features:
        from toybox.captions import parse

        key = (prompt, *_seen_by(config))
        if key not in self._features:
            self._features[key] = self._around(parse(prompt), config, NUM_VIEWS)
        return self._features[key]

    def _moments_of_all_toys(self, config: Config) -> Moments:
        from toybox.captions import ALONE

        seen_by = _seen_by(config)
        if seen_by in self._moments:
            return self._moments[seen_by]

        each = math.ceil(self._count / len(ALONE))

        def make() -> Moments:
            seen = [
                self._around(toy, config, each) for toy in tqdm(ALONE, desc="renders of all toys", unit="toy")
            ]
            return Moments.of(np.concatenate(seen))

        key = hashlib.sha256(repr((self.identity, seen_by, len(ALONE))).encode()).hexdigest()[:12]
        kept = Moments.kept(self._folder / f"toys-{each * len(ALONE)}-{key}.npz", make)
        return self._moments.setdefault(seen_by, kept)

    def _around(self, toy: Name, config: Config, count: int) -> Features:
        """The judge's features [count, D] of a true toy's views."""
        from toybox.splats import canonical

        return self.judge.features(views_of(canonical(toy), config, count)).numpy()


def _seen_by(config: Config) -> tuple[GenerateCamParams, PipelineParams]:
    """Parameters that a toy's views depend on."""
    return config.camera, config.pipeline
