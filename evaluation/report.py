"""Report on finished runs: the table in the terminal, Markdown, JSON and a contact sheet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from evaluation import scorers
from evaluation.pages import renew_page
from evaluation.runs import Outcome
from evaluation.scorers import SCORERS, ScorerOptions
from evaluation.scores import ScoredRun, score
from evaluation.sheet import suite_sheet
from evaluation.suite import Run, Suite
from evaluation.table import (
    COST_COLUMNS,
    as_json,
    by_prompt,
    compared,
    difference_table,
    differences,
    main_table,
    rows,
)
from utils.device import resolve_device
from utils.files import write_text
from utils.media import write_jpeg

SHORT = 2
"""Number of columns that are shown of every single run."""


def write_report(
    suite: Suite,
    found: Mapping[Run, Outcome],
    failures: Mapping[str, str],
    names: Sequence[str],
    options: ScorerOptions,
    out: Path,
) -> None:
    """Score finished runs, print the tables, and write table.md, results.json and sheet.jpg into `out`.

    names: of scorers. Those that cannot be had are reported, and their columns stay empty.
    """
    loaded, skipped = scorers.load(names, options, suite.prompts, suite.config, resolve_device(None))
    for name, reason in skipped.items():
        print(f"{name} is skipped: {reason}")
    scored = [score(run, outcome, loaded) for run, outcome in tqdm(found.items(), "score", unit="run")]
    for outcome in found.values():
        renew_page(outcome)

    single = [column for name in names for column in SCORERS[name].columns]
    columns = [*single, *(column for name in names for column in SCORERS[name].set_columns), *COST_COLUMNS]
    figures = rows(suite, scored, loaded)
    comparable = compared([*single, *COST_COLUMNS])
    leads = differences(suite, scored, comparable)
    parts = [main_table(suite, figures, columns)]
    if any(leads.values()):
        parts.append(difference_table(suite, leads, comparable))
    shown = (single or COST_COLUMNS)[:SHORT]
    parts.append(by_prompt(suite, scored, shown))
    parts.append("  \n".join([*_notes(suite, scored), *_told(skipped, failures)]))
    text = "\n\n".join(parts)
    print(f"\n{text}")

    write_text(out / "table.md", text + "\n")
    told = {"skipped": dict(skipped), "failures": dict(failures)}
    results = as_json(suite, figures, leads, scored, columns) | told
    write_text(out / "results.json", json.dumps(results, indent=1) + "\n")
    write_jpeg(out / "sheet.jpg", suite_sheet(suite, scored, shown))
    print(f"\nTable {out / 'table.md'}, numbers {out / 'results.json'}, sheet {out / 'sheet.jpg'}.")


def _notes(suite: Suite, scored: Sequence[ScoredRun]) -> list[str]:
    notes = ["±: half a 95% interval by Student's t over the seeds' means; differences: over pairs of runs."]
    machines = sorted({one.outcome.cost.machine for one in scored})
    notes.append(f"Timed on {'; '.join(machines)}.")
    if suite.published:
        notes.append(f"Published: {suite.source}.")
    return notes


def _told(skipped: Mapping[str, str], failures: Mapping[str, str]) -> list[str]:
    return [*(f"{name} was skipped: {reason}" for name, reason in skipped.items()), *failures.values()]
