"""The table of an evaluation, and the scores that are kept beside runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp, ttest_rel
from torch import Tensor

from evaluation.assets import Asset, ScoredAsset, Scores
from evaluation.runs import Outcome
from evaluation.scorers import Column
from evaluation.scores import ScoredRun, score
from evaluation.suite import Suite
from evaluation.table import (
    COST_COLUMNS,
    aligned,
    as_json,
    by_prompt,
    difference_table,
    differences,
    main_table,
    rows,
)
from scene.gaussian_model import GaussianModel
from tests.evaluation.fake_runs import finished, run_of

SHARE = Column("share", "share", ".0%", 1)
SPREAD = Column("spread", "spread", ".1f", -1)


class FakeScorer:
    """Scorer whose score is the number of views, and for a set the number of assets."""

    name, columns, set_columns = "fake", (SHARE,), (SPREAD,)

    def __init__(self, identity: str = "fake") -> None:
        self.identity, self.seen = identity, 0

    def score(self, asset: Asset, views: Tensor) -> Scores:
        self.seen += 1
        return Scores({"share": float(len(views))}, np.full((2, 3), self.seen, dtype=np.float32))

    def score_set(self, assets: Sequence[ScoredAsset]) -> Mapping[str, float]:
        return {"spread": float(len(assets))}

    @classmethod
    def load(cls, *_: object) -> FakeScorer:
        return cls()


@pytest.fixture
def asset(tmp_path: Path) -> Outcome:
    run = run_of("a red mug", image_w=16, image_h=16)
    outcome = Outcome.read(finished(run.config, tmp_path))
    GaussianModel.from_points(torch.zeros(1, 3), torch.zeros(1, 3), 0, 0.99).save_ply(outcome.folder.asset)
    return outcome


def test_a_run_is_scored_once_by_every_scorer(asset: Outcome) -> None:
    run, scorer = run_of("a red mug", image_w=16, image_h=16), FakeScorer()
    first = score(run, asset, [scorer])
    assert first.numbers == {"share": 120.0}
    again = score(run, asset, [FakeScorer(), scorer])
    assert again.numbers == first.numbers
    assert np.array_equal(again.seen["fake"].features, np.ones((2, 3)))
    assert scorer.seen == 1
    # Other weights or options say something else.
    other = FakeScorer("other weights")
    score(run, asset, [other, scorer])
    assert (other.seen, scorer.seen) == (1, 1)
    # What is known needs neither the asset nor its renders.
    asset.folder.asset.unlink()
    assert score(run, asset, [scorer]).numbers == first.numbers


VALUES = {
    ("SDS", "a", 0): 0.2, ("SDS", "b", 0): 0.4, ("SDS", "a", 1): 0.3, ("SDS", "b", 1): 0.7,
    ("ISM", "a", 0): 0.6, ("ISM", "b", 0): 0.9, ("ISM", "a", 1): 0.4,
}  # fmt: skip


@pytest.fixture
def scored(tmp_path: Path) -> tuple[Suite, list[ScoredRun]]:
    made, planned = [], []
    for method, prompt, seed in [*VALUES, ("ISM", "b", 1)]:
        run = run_of(prompt, seed, guidance_type=method.lower())
        run = type(run)(method, prompt, seed, run.config)
        planned.append(run)
        if (method, prompt, seed) in VALUES:
            outcome = Outcome.read(finished(run.config, tmp_path, seconds=60.0 * (1 + seed)))
            features = {"fake": ScoredAsset(prompt, run.config, np.zeros((2, 3)))}
            made.append(ScoredRun(run, outcome, {"share": VALUES[method, prompt, seed]}, features))
    suite = Suite(
        name="some",
        methods=("SDS", "ISM", "GCS"),
        prompts=("a", "b"),
        seeds=(0, 1),
        runs=tuple(planned),
        lead="ISM",
        absent={"GCS": "impossible"},
        published={"SDS": {"share": 0.285, "minutes": 60}},
        source="a paper",
    )
    return suite, made


def test_figures_are_means_over_seeds_with_their_interval(scored: tuple[Suite, list[ScoredRun]]) -> None:
    suite, made = scored
    found = {row.method: row for row in rows(suite, made, [FakeScorer()])}
    share = found["SDS"].figures["share"]
    low, high = ttest_1samp([0.3, 0.5], 0).confidence_interval(0.95)
    assert (share.mean - share.half, share.mean + share.half) == pytest.approx((low, high))
    # Two assets of each seed; of ISM's second seed there is one.
    assert found["SDS"].figures["spread"].mean == 2
    assert found["ISM"].figures["spread"].mean == 1.5
    assert found["SDS"].figures["minutes"].mean == 1.5
    assert (found["ISM"].count, found["ISM"].planned) == (3, 4)
    assert found["GCS"].figures == {}


def test_differences_are_over_pairs_of_one_prompt_and_seed(scored: tuple[Suite, list[ScoredRun]]) -> None:
    suite, made = scored
    found = differences(suite, made, [SHARE])["SDS"]["share"]
    low, high = ttest_rel([0.6, 0.9, 0.4], [0.2, 0.4, 0.3]).confidence_interval(0.95)
    assert found.count == 3
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))
    assert differences(suite, made[:5], [SHARE])["SDS"] == {}


def test_tables_are_whole_and_show_what_is_published_and_what_is_missing(
    scored: tuple[Suite, list[ScoredRun]],
) -> None:
    suite, made = scored
    columns = [SHARE, SPREAD, Column("clip_score", "CLIP-L", ".2f", 1), *COST_COLUMNS]
    found = rows(suite, made, [FakeScorer()])
    leads = differences(suite, made, [SHARE, *COST_COLUMNS])
    tables = (
        main_table(suite, found, columns),
        difference_table(suite, leads, [SHARE]),
        by_prompt(suite, made, [SHARE]),
    )
    for table in tables:
        assert len({len(line) for line in table.splitlines()}) == 1
        assert len({line.count("|") for line in table.splitlines()}) == 1
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in tables[0].splitlines()]
    assert cells[0][:5] == ["method", "runs", "share ↑", "spread ↓", "CLIP-L ↑"]
    assert cells[2][:2] == ["SDS", "4"]
    assert cells[2][2].startswith("40% ± ")
    # Skipped scorers' cells stay empty.
    assert [line[4] for line in cells[2:]] == [""] * 4
    assert cells[3] == ["SDS, published", "", "28%", "", "", "60.0", *[""] * 5]
    assert cells[4][:2] == ["ISM", "3 of 4"]
    assert cells[5] == ["GCS", "impossible", *[""] * 9]
    assert [line.split("|")[1:-1] for line in tables[2].splitlines()[2:]] == [
        [" a      ", " 20%; 30% ", " 60%; 40% "],
        [" b      ", " 40%; 70% ", " 90%      "],
    ]
    told = json.loads(json.dumps(as_json(suite, found, leads, made, columns)))
    assert told["rows"][0]["figures"]["share"]["mean"] == pytest.approx(0.4)
    assert [run["share"] for run in told["runs"]] == list(VALUES.values())
    assert told["published"]["SDS"]["minutes"] == 60
    assert told["differences"]["SDS"]["share"]["count"] == 3


def test_one_seed_has_no_interval(scored: tuple[Suite, list[ScoredRun]]) -> None:
    suite, made = scored
    found = rows(suite, [one for one in made if one.run.seed == 0], [])
    assert found[0].figures["share"].half is None
    assert "±" not in main_table(suite, found, [SHARE])


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert aligned([["a", "long head"], ["longer", ""]]).splitlines() == [
        "| a      | long head |",
        "|--------|-----------|",
        "| longer |           |",
    ]
