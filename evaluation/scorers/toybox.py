"""What toybox's judge and the truth say of an asset."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from config import Config
from config.camera_params import GenerateCamParams
from evaluation.assets import Asset, Features, ScoredAsset, Scores
from evaluation.frechet import Moments, frechet_distance
from evaluation.scorers.contract import Column, ScorerError, ScorerOptions
from evaluation.scorers.weights import fingerprint
from gaussian_renderer.showcase import show
from scene.cameras import turntable

if TYPE_CHECKING:
    from toybox.judge import Judge


class ToyboxScorer:
    """`toybox.assess`, and the Fréchet distance in the judge's features.

    That once to the views of the same prompts' true toys, and once, as FID has it, to at least `fid_images` renders of all
    toys, whose moments are kept.
    """

    name = "toybox"
    columns: tuple[Column, ...] = (
        Column("recognised", "judge", ".0%", 1),
        Column("psnr", "PSNR", ".1f", 1),
        Column("chamfer", "Chamfer", ".1f", -1),
        Column("janus", "Janus", ".1%", -1),
    )
    set_columns: tuple[Column, ...] = (
        Column("judge_fid", "FID (judge)", ".0f", -1),
        Column("judge_fid_all_toys", "FID (judge), all toys", ".0f", -1),
    )

    def __init__(self, judge: Judge, fid_images: int, folder: Path) -> None:
        self.judge, self._count, self._folder = judge, fid_images, folder
        self.identity = repr(("toybox", fingerprint(judge)))
        self._features = cache(self._features_of_toy)
        self._all_toys = cache(self._moments_of_all_toys)

    @classmethod
    def load(
        cls, options: ScorerOptions, prompts: Sequence[str], config: Config, device: torch.device
    ) -> ToyboxScorer:
        """Raises ScorerError, one sentence."""
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
        from toybox.assess import assess

        found = assess(asset.gaussians, asset.prompt, asset.config, self.judge)
        return Scores(
            {column.key: float(getattr(found, column.key)) for column in self.columns}, found.features
        )

    def score_set(self, assets: Sequence[ScoredAsset]) -> Mapping[str, float]:
        found = Moments.of(np.concatenate([asset.features for asset in assets]))
        true = [self._features(asset.prompt, asset.config.camera) for asset in assets]
        return {
            "judge_fid": frechet_distance(found, Moments.of(np.concatenate(true))),
            "judge_fid_all_toys": frechet_distance(found, self._all_toys(assets[0].config.camera)),
        }

    def _features_of_toy(self, prompt: str, camera: GenerateCamParams) -> Features:
        from toybox.assess import NUM_VIEWS
        from toybox.captions import parse

        return self._around(parse(prompt), camera, NUM_VIEWS)

    def _moments_of_all_toys(self, camera: GenerateCamParams) -> Moments:
        from toybox.world import COLORS, KINDS

        toys = [(kind, color) for kind in KINDS for color in COLORS]
        each = math.ceil(self._count / len(toys))

        def make() -> Moments:
            seen = [
                self._around(toy, camera, each) for toy in tqdm(toys, desc="renders of all toys", unit="toy")
            ]
            return Moments.of(np.concatenate(seen))

        key = hashlib.sha256(repr((self.identity, camera, len(toys))).encode()).hexdigest()[:12]
        return Moments.kept(self._folder / f"toys-{each * len(toys)}-{key}.npz", make)

    def _around(self, toy: tuple[Any, ...], camera: GenerateCamParams, count: int) -> Features:
        """[count, D]: the judge's features of a true toy's views as `toybox.assess` has them of an asset."""
        from toybox.splats import canonical

        images = show(canonical(*toy), turntable(camera, count), white=True).rgb
        return self.judge.features(images).numpy()
