"""Results of scorers get onto a run's page, once."""

from __future__ import annotations

import json
import os
from pathlib import Path

from evaluation.pages import metrics_of, renew_page
from evaluation.runs import Outcome
from tests.evaluation.fake_runs import finished, run_of
from utils.files import write_text


def said(outcome: Outcome, name: str, numbers: dict[str, float], at: float) -> None:
    """Write the numbers of a scorer as if it had done so `at` that time."""
    file = outcome.folder.root / "scores" / f"{name}.json"
    write_text(file, json.dumps({"numbers": numbers, "features": False}))
    os.utime(file, (at, at))


def test_a_page_is_written_when_a_scorer_has_said_something_new(tmp_path: Path) -> None:
    outcome = Outcome.read(finished(run_of("a mug").config, tmp_path))
    page = outcome.folder.page
    renew_page(outcome)
    assert not page.exists()

    said(outcome, "toybox-0123", {"recognised": 0.25}, at=1000)
    renew_page(outcome)
    assert "25%" in page.read_text()

    write_text(page, "as it was")
    renew_page(outcome)
    assert page.read_text() == "as it was"

    said(outcome, "clip-4567", {"clip_score": 27.5}, at=page.stat().st_mtime + 10)
    renew_page(outcome)
    assert "25%" in page.read_text()
    assert "27.5" in page.read_text()


def test_the_latest_weights_of_a_scorer_count_and_strangers_do_not(tmp_path: Path) -> None:
    outcome = Outcome.read(finished(run_of("a mug").config, tmp_path))
    said(outcome, "toybox-9999", {"recognised": 0.25, "no column": 3.0}, at=1000)
    said(outcome, "toybox-0000", {"recognised": 0.75}, at=2000)
    said(outcome, "stranger-0000", {"recognised": 0.5}, at=3000)
    assert list(metrics_of(outcome).values()) == ["75%"]
