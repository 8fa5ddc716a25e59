"""Scores of a run, on the run's own page."""

from __future__ import annotations

import json

from evaluation.runs import Outcome
from evaluation.scorers import SCORERS
from evaluation.scores import files_of
from training.report_page import try_report_page


def renew_page(outcome: Outcome) -> None:
    """Write the page of a run again if a scorer has looked at the run since, with the numbers of all that have."""
    files, page = files_of(outcome), outcome.folder.page
    newest = max((file.stat().st_mtime for file in files), default=0.0)
    if files and not (page.exists() and page.stat().st_mtime >= newest):
        try_report_page(outcome.folder, outcome.cost, metrics_of(outcome))


def metrics_of(outcome: Outcome) -> dict[str, str]:
    """Numbers by heading, of every scorer that has looked at the run; with several weights, the latest."""
    said: dict[str, str] = {}
    for file in sorted(files_of(outcome), key=lambda file: file.stat().st_mtime):
        numbers = json.loads(file.read_text(encoding="utf-8"))["numbers"]
        name = file.stem.rpartition("-")[0]
        columns = SCORERS[name].columns if name in SCORERS else ()
        said |= {c.heading: format(numbers[c.key], c.form) for c in columns if c.key in numbers}
    return said
