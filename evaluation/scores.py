"""Scores of finished runs, kept beside these: another scorer adds its own, and nothing is scored twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from config import Config
from evaluation.assets import Asset, ScoredAsset, Scores
from evaluation.runs import Outcome
from evaluation.scorers import Scorer
from evaluation.suite import Run
from gaussian_renderer.showcase import views_of
from scene.gaussian_model import GaussianModel
from utils.files import atomic_path, write_text


@dataclass(frozen=True)
class ScoredRun:
    """Scores of a run.

    numbers: of the asset, by column; seen: what scorers with numbers of sets keep of it, by scorer.
    """

    run: Run
    outcome: Outcome
    numbers: Mapping[str, float]
    seen: Mapping[str, ScoredAsset] = field(repr=False)


@dataclass
class _Subject:
    """Asset that is loaded and rendered only if a scorer has not seen it yet."""

    outcome: Outcome
    config: Config

    @cached_property
    def asset(self) -> Asset:
        gaussians = GaussianModel.load_ply(self.outcome.folder.asset)
        return Asset(gaussians, self.config.guidance.text, self.config)

    @cached_property
    def views(self) -> Tensor:
        return views_of(self.asset.gaussians, self.config)


def score(run: Run, outcome: Outcome, scorers: Iterable[Scorer]) -> ScoredRun:
    """Numbers of all scorers for a finished run, from its folder where they are known."""
    subject = _Subject(outcome, run.config)
    numbers: dict[str, float] = {}
    seen: dict[str, ScoredAsset] = {}
    for scorer in scorers:
        path = _file(outcome, scorer)
        found = _read(path)
        if found is None:
            found = scorer.score(subject.asset, subject.views)
            _write(path, found)
        numbers |= found.numbers
        if found.features is not None:
            seen[scorer.name] = ScoredAsset(run.prompt, run.config, found.features)
    return ScoredRun(run, outcome, numbers, seen)


def of_set(scorer: Scorer, runs: Sequence[ScoredRun]) -> Mapping[str, float]:
    """A scorer's numbers of a set of assets; {} if it has none or saw none of them."""
    assets = [run.seen[scorer.name] for run in runs if scorer.name in run.seen]
    return scorer.score_set(assets) if assets and scorer.set_columns else {}


def files_of(outcome: Outcome) -> list[Path]:
    """Files of the scores of a run, one each, named after the scorer, and what its scores depend on."""
    return sorted(_folder(outcome).glob("*-*.json"))


def _folder(outcome: Outcome) -> Path:
    return outcome.folder.root / "scores"


def _file(outcome: Outcome, scorer: Scorer) -> Path:
    key = hashlib.sha256(scorer.identity.encode()).hexdigest()[:12]
    return _folder(outcome) / f"{scorer.name}-{key}.json"


def _read(path: Path) -> Scores | None:
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return Scores(found["numbers"], np.load(path.with_suffix(".npy")) if found["features"] else None)


def _write(path: Path, scores: Scores) -> None:
    """Write the scores, the numbers last: where they are, the features are too."""
    if scores.features is not None:
        with atomic_path(path.with_suffix(".npy")) as temporary:
            np.save(temporary, scores.features)
    kept = {"numbers": dict(scores.numbers), "features": scores.features is not None}
    write_text(path, json.dumps(kept, indent=1) + "\n")
