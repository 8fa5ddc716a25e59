"""Contact sheets: a place for every run, white where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evaluation.runs import Outcome
from evaluation.scores import ScoredRun
from evaluation.sheet import TILE, suite_sheet
from evaluation.suite import Run, Suite
from scene.gaussian_model import GaussianModel
from tests.evaluation.fake_runs import finished, run_of
from utils.media import LABEL_HEIGHT

SIDE, HIGH = TILE + 2, TILE + LABEL_HEIGHT + 2


def suite_of(prompts: tuple[str, ...], model_key: str) -> Suite:
    runs = []
    for prompt in prompts:
        for method in ("sds", "sctd"):
            config = run_of(
                prompt, guidance_type=method, model_key=model_key, image_w=160, image_h=160
            ).config
            runs.append(Run(method, prompt, 0, config))
    return Suite(
        "some", ("gcs", "sds", "sctd"), prompts, (0,), tuple(runs), "sctd", absent={"gcs": "impossible"}
    )


def scored(run: Run, outputs: Path) -> ScoredRun:
    outcome = Outcome.read(finished(run.config, outputs))
    dark = GaussianModel.from_points(torch.zeros(1, 3), torch.zeros(1, 3), 0, 0.99)
    dark.save_ply(outcome.folder.asset)
    return ScoredRun(run, outcome, {}, {})


@pytest.mark.parametrize("prompts", [("a red car",), ("a red car", "a blue duck")])
@pytest.mark.parametrize("model_key", ["toybox", "somewhere/else"])
def test_a_sheet_has_a_place_for_every_run(prompts: tuple[str, ...], model_key: str, tmp_path: Path) -> None:
    suite = suite_of(prompts, model_key)
    picture = suite_sheet(suite, [scored(suite.runs[-1], tmp_path)], [])
    # A single prompt's sheet shows which methods are left out; others begin with the prompt.
    heads = ["head"] if len(prompts) > 1 else ["gcs"]
    assert picture.shape == (3, len(prompts) * HIGH - 2, 3 * 2 * SIDE - 2)
    for row, prompt in enumerate(prompts):
        for column, name in enumerate([*heads, "sds", "sctd"]):
            top, left = row * HIGH + LABEL_HEIGHT, column * 2 * SIDE
            for side in (0, SIDE):
                seen = picture[:, top : top + TILE, left + side : left + side + TILE]
                made = (name, prompt) == ("sctd", prompts[-1]) or (name == "head" and model_key == "toybox")
                assert (float(seen.min()) < 0.9) == made, (name, prompt)
