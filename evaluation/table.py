"""Table of an evaluation: its rows, with intervals, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evaluation.intervals import Estimate, over_seeds, paired
from evaluation.scorers import Column, Scorer
from evaluation.scores import ScoredRun, of_set
from evaluation.suite import Suite

COST_COLUMNS = (
    Column("minutes", "min", ".1f", -1),
    Column("core_seconds", "core-s", ".0f", -1),
    Column("peak_memory", "GB", ".1f", -1),
    Column("gaussians", "Gaussians", ",.0f", 0),
    Column("evaluations", "U-Net evaluations", ".1f", 0),
    Column("all_evaluations", "in all", ",.0f", 0),
)
"""Columns of what a run took: minutes of its loop and processor time in it, the most memory, the size of its asset, U-Net
evaluations per view and iteration, and of all views and iterations.
"""

ARROWS = {1: " ↑", -1: " ↓", 0: ""}


@dataclass(frozen=True)
class Row:
    """Figures of a method; count: of its finished runs, of `planned`; absent: why there are none."""

    method: str
    count: int
    planned: int
    figures: Mapping[str, Estimate]
    absent: str = ""


def numbers_of(scored: ScoredRun) -> dict[str, float]:
    """Numbers of one run: the scores of its asset, and what it took."""
    cost, config = scored.outcome.cost, scored.run.config
    took = {"minutes": cost.seconds / 60, "peak_memory": cost.peak_memory, "gaussians": cost.gaussians}
    if cost.core_seconds is not None:
        took["core_seconds"] = cost.core_seconds
    views = config.optimization.iterations * config.guidance.C_batch_size
    asked = {"evaluations": cost.evaluations, "all_evaluations": cost.evaluations * views}
    return {**scored.numbers, **took, **asked}


def rows(suite: Suite, scored: Sequence[ScoredRun], scorers: Sequence[Scorer]) -> list[Row]:
    """Rows, one for each method. Numbers of a set are those of a seed's assets: all have intervals over the seeds."""
    found = []
    for method in suite.methods:
        own = [one for one in scored if one.run.method == method]
        by_seed = {seed: [one for one in own if one.run.seed == seed] for seed in suite.seeds}
        values: dict[str, dict[int, list[float]]] = {}
        for seed, some in by_seed.items():
            told = [numbers_of(one) for one in some] + [dict(of_set(scorer, some)) for scorer in scorers]
            for numbers in told:
                for key, value in numbers.items():
                    values.setdefault(key, {}).setdefault(seed, []).append(value)
        figures = {key: over_seeds(seeds) for key, seeds in values.items()}
        planned = sum(run.method == method for run in suite.runs)
        found.append(Row(method, len(own), planned, figures, suite.absent.get(method, "")))
    return found


def differences(
    suite: Suite, scored: Sequence[ScoredRun], columns: Iterable[Column]
) -> dict[str, dict[str, Estimate]]:
    """Differences by other method and column: the leading method less the other, over two or more runs of one
    prompt and seed.
    """
    numbers = {(one.run.method, one.run.prompt, one.run.seed): numbers_of(one) for one in scored}
    found: dict[str, dict[str, Estimate]] = {}
    for other in suite.methods:
        if other == suite.lead:
            continue
        found[other] = {}
        for key in (column.key for column in columns):
            pairs = [
                (ours[key], theirs[key])
                for (method, prompt, seed), ours in numbers.items()
                if method == suite.lead and (theirs := numbers.get((other, prompt, seed)))
                if key in ours and key in theirs
            ]
            if len(pairs) > 1:
                found[other][key] = paired(*zip(*pairs))
    return found


def compared(columns: Iterable[Column]) -> list[Column]:
    """Columns that can be compared run by run, and of which one is better."""
    return [column for column in columns if column.better]


def main_table(suite: Suite, found: Sequence[Row], columns: Sequence[Column]) -> str:
    """Table in Markdown, aligned: a line for each method, below it what is published of it."""
    lines = [
        [
            ", ".join(["method", *suite.varied]),
            "runs",
            *(column.heading + ARROWS[column.better] for column in columns),
        ]
    ]
    for row in found:
        if row.absent:
            lines.append([row.method, row.absent, *[""] * len(columns)])
            continue
        count = str(row.count) if row.count == row.planned else f"{row.count} of {row.planned}"
        lines.append(
            [row.method, count, *(_cell(row.figures.get(column.key), column.form) for column in columns)]
        )
        published = suite.published.get(row.method)
        if published:
            cells = (format(published[c.key], c.form) if c.key in published else "" for c in columns)
            lines.append([f"{row.method}, published", "", *cells])
    return aligned(lines)


def difference_table(
    suite: Suite, found: Mapping[str, Mapping[str, Estimate]], columns: Sequence[Column]
) -> str:
    """Table in Markdown, aligned: a line for each other method."""
    lines = [[f"{suite.lead} less", "pairs", *(column.heading for column in columns)]]
    for other, estimates in found.items():
        pairs = str(max((each.count for each in estimates.values()), default=0))
        cells = (_cell(estimates.get(column.key), f"+{column.form}") for column in columns)
        lines.append([other, pairs, *cells])
    return aligned(lines)


def by_prompt(suite: Suite, scored: Sequence[ScoredRun], columns: Sequence[Column]) -> str:
    """Table in Markdown, aligned: each run's numbers, prompts down and methods across, the seeds one after
    the other.
    """
    methods = [method for method in suite.methods if method not in suite.absent]
    lines = [["prompt", *methods]]
    for prompt in suite.prompts:
        cells = []
        for method in methods:
            own = [one for one in scored if (one.run.method, one.run.prompt) == (method, prompt)]
            cells.append("; ".join(short(one, columns) for one in sorted(own, key=lambda one: one.run.seed)))
        lines.append([prompt, *cells])
    return aligned(lines)


def short(scored: ScoredRun, columns: Iterable[Column]) -> str:
    """Numbers of a run in some columns, those that there are."""
    numbers = numbers_of(scored)
    return ", ".join(format(numbers[c.key], c.form) for c in columns if c.key in numbers)


def as_json(
    suite: Suite,
    found: Sequence[Row],
    leads: Mapping[str, Mapping[str, Estimate]],
    scored: Sequence[ScoredRun],
    columns: Sequence[Column],
) -> dict[str, Any]:
    """Contents of all tables, and each run, as values for JSON."""
    return {
        "suite": suite.name,
        "columns": [asdict(column) for column in columns],
        "rows": [asdict(row) for row in found],
        "published": {"source": suite.source, **suite.published},
        "lead": suite.lead,
        "differences": {
            other: {key: asdict(each) for key, each in own.items()} for other, own in leads.items()
        },
        "runs": [
            {
                "method": one.run.method,
                "prompt": one.run.prompt,
                "seed": one.run.seed,
                "folder": one.outcome.folder.root.as_posix(),
                "machine": one.outcome.cost.machine,
                **numbers_of(one),
            }
            for one in scored
        ],
    }


def _cell(estimate: Estimate | None, form: str) -> str:
    if estimate is None:
        return ""
    if estimate.half is None:
        return format(estimate.mean, form)
    return f"{estimate.mean:{form}} ± {estimate.half:{form.lstrip('+')}}"


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Table in Markdown whose first line is its head, with columns of even width, for terminals too."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    padded = [[cell.ljust(width) for cell, width in zip(cells, widths)] for cells in lines]
    head, *body = (f"| {' | '.join(cells)} |" for cells in padded)
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([head, rule, *body])
