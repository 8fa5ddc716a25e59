"""`python -m toybox.compare`: the guidances, SCTD's approximation and its segments on toybox, as tables and pictures.

Run in the root of the project's checkout. Finished runs are kept under outputs/compare: the same command goes on where
it was interrupted. All runs start from the sphere, where a guidance has the most to do; all other settings but those
that a table names are the configuration's.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean, median

import numpy as np
from torch import Tensor

from config import Config, ConfigError
from evaluation.frechet import Moments, frechet_distance
from gaussian_renderer import Gaussians
from gaussian_renderer.showcase import show
from scene.cameras import turntable
from toybox import segments
from toybox.assess import NUM_VIEWS
from toybox.captions import HELD_OUT, parse
from toybox.judge import load_judge
from toybox.runs import Archive, Bench, Outcome, Settings, machine, run_missing
from toybox.sheets import asset_sheet
from toybox.splats import canonical
from toybox.start_settings import SPHERE
from utils.media import write_jpeg

RESULTS = Path("outputs/compare/results")
PROMPTS = ("a red mushroom", "a purple rocket", "a red chair", "a blue car")
"""Four kinds. Of these, the quickstart's settings were tuned on the mushroom alone; the blue car is held out."""
SEEDS = (0, 1)
TABLES = ("guidances", "approximation", "segments")


@dataclass(frozen=True)
class Row:
    """A line of a table: method and guidance scale, and what else sets its runs apart from the configuration."""

    method: str
    scale: str
    settings: Settings

    @property
    def label(self) -> str:
        return f"{self.method} {self.scale}"


def _row(method: str, scale: str, **settings: str) -> Row:
    return Row(method, scale, {"guidance_scale": scale, **settings})


GUIDANCES = (
    _row("SDS", "7.5", guidance_type="sds"),
    _row("SDS", "100", guidance_type="sds"),
    _row("ISM", "7.5", guidance_type="ism"),
    _row("CDS", "7.5", guidance_type="cds"),
    _row("CDS", "30", guidance_type="cds"),
    _row("GCS", "7.5", guidance_type="gcs"),
    _row("SCTD, paper", "7.5", guidance_type="sctd", sctd_variant="paper"),
    _row("SCTD, released", "7.5", guidance_type="sctd", sctd_variant="released"),
)
"""Every method at ω = 7.5 and at its paper's own scale, where that is another (CDS: 20 to 40 in SegmentDreamer's
comparison)."""

APPROXIMATION = (
    _row("SCTD, approx.", "7.5", guidance_type="sctd", approximate="true"),
    _row("SCTD, exact", "7.5", guidance_type="sctd", approximate="false"),
)
"""SegmentDreamer's Fig. 7: G(z_t, ∅) taken to be z_{s_m}, or back-propagated through the U-Net."""


def configs(
    bench: Bench, rows: Sequence[Row], prompts: Sequence[str], seeds: Sequence[int]
) -> dict[str, Config]:
    """By name; one seed after the other, so that an interrupted table is even."""
    return {
        f"{row.label}, {prompt}, seed {seed}": bench.config(prompt, seed, row.settings)
        for seed in seeds
        for prompt in prompts
        for row in rows
    }


@cache
def true_features(prompt: str, config: Config) -> np.ndarray:
    """[NUM_VIEWS, 128]: the judge's features of the true toy's renders."""
    around = turntable(config.camera, NUM_VIEWS)
    return load_judge().features(show(canonical(*parse(prompt)), around, white=True).rgb).numpy()


MEANS = ("runs", "judge", "FID", "Chamfer", "Janus", "PSNR", "seconds")


def mean_cells(outcomes: Sequence[Outcome], config: Config) -> list[str]:
    """MEANS over some runs (seconds: the median); FID: between all their views and those of the true toys."""
    if not outcomes:
        return ["0"] + [""] * (len(MEANS) - 1)
    found = [outcome.assessment for outcome in outcomes]
    drawn, true = (
        Moments.of(np.concatenate(features))
        for features in ([a.features for a in found], [true_features(a.prompt, config) for a in found])
    )
    return [
        str(len(outcomes)),
        f"{mean(a.recognised for a in found):.0%}",
        f"{frechet_distance(drawn, true):.0f}",
        f"{mean(a.chamfer for a in found):.1f}",
        f"{mean(a.janus for a in found):.1%}",
        f"{mean(a.psnr for a in found):.1f} dB",
        f"{median(outcome.seconds for outcome in outcomes):.0f}",
    ]


def line(row: Row, outcomes: Sequence[Outcome], config: Config) -> str:
    """A row's means over its runs."""
    evaluations = f"{mean(outcome.evaluations for outcome in outcomes):.1f}" if outcomes else ""
    return table_line([row.method, row.scale, *mean_cells(outcomes, config), evaluations])


def table_line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def table_head(names: Sequence[str]) -> list[str]:
    """A markdown table's first two lines."""
    return [table_line(names), "|---" * len(names) + "|"]


def table(bench: Bench, rows: Sequence[Row], prompts: Sequence[str], seeds: Sequence[int]) -> str:
    """Markdown: a line of means for each row, then the judge's accuracy and PSNR of each run by prompt."""
    means = table_head(["guidance", "ω", *MEANS, "U-Net evaluations"])
    by_prompt = table_head(["guidance", "ω", *map(marked, prompts)])
    config = bench.config(prompts[0], seeds[0], {})
    for row in rows:
        finished = [
            [outcome for seed in seeds if (outcome := bench.outcome(prompt, seed, row.settings))]
            for prompt in prompts
        ]
        means.append(line(row, [outcome for some in finished for outcome in some], config))
        cells = ["; ".join(outcome.assessment.short for outcome in some) for some in finished]
        by_prompt.append(table_line([row.method, row.scale, *cells]))
    return "\n".join([*means, "", *by_prompt])


def sheet(bench: Bench, rows: Sequence[Row], prompts: Sequence[str], seed: int) -> Tensor:
    """The true toys, then a line of pictures for each row."""

    def shown() -> Iterator[tuple[Gaussians | None, str, str]]:
        for prompt in prompts:
            yield canonical(*parse(prompt)), marked(prompt), "the true toy"
        for row in rows:
            for prompt in prompts:
                outcome = bench.outcome(prompt, seed, row.settings)
                says = outcome.assessment.short if outcome else "not run"
                yield outcome.gaussians if outcome else None, row.label, says

    return asset_sheet(shown(), len(prompts), bench.config(prompts[0], seed, {}))


def marked(prompt: str) -> str:
    """With a star if training never saw the pair."""
    return prompt + (" *" if parse(prompt) in HELD_OUT else "")


def report(bench: Bench, arguments: argparse.Namespace) -> None:
    """Make the runs that are missing, then print the tables and write the sheets."""
    prompts, seeds = tuple(arguments.prompts), tuple(arguments.seeds)
    rows = {"guidances": (GUIDANCES, seeds), "approximation": (APPROXIMATION, seeds[:1])}
    wanted: dict[str, Config] = {}
    for name in arguments.tables:
        if name == "segments":
            wanted |= segments.configs(bench, prompts[0], seeds[0])
        else:
            wanted |= configs(bench, rows[name][0], prompts, rows[name][1])
    run_missing(wanted, bench.archive, arguments.jobs)

    print(machine())
    for name in arguments.tables:
        if name == "segments":
            print(f"\n{prompts[0]}, seed {seeds[0]}\n\n{segments.table(bench, prompts[0], seeds[0])}")
            picture = segments.sheet(bench, prompts[0], seeds[0]) if arguments.sheets else None
        else:
            print(f"\n{table(bench, rows[name][0], prompts, rows[name][1])}")
            picture = sheet(bench, rows[name][0], prompts, seeds[0]) if arguments.sheets else None
        if picture is not None:
            write_jpeg(arguments.sheets / f"{name}.jpg", picture)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m toybox.compare", description=__doc__)
    parser.add_argument("--tables", nargs="+", default=TABLES, choices=TABLES, help="which, in which order")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time; 0: print what there is")
    parser.add_argument("--sheets", type=Path, help="folder for the contact sheets of the first seed")
    parser.add_argument("--opt", default="config/quickstart.yaml", help="the configuration of the runs")
    parser.add_argument("--prompts", nargs="+", default=PROMPTS, help="segments: of the first one")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=SEEDS, help="guidances: of all, else the first"
    )
    arguments = parser.parse_args()
    logging.getLogger("config").setLevel(logging.ERROR)
    try:
        for prompt in arguments.prompts:
            parse(prompt)
        report(Bench(arguments.opt, Archive(RESULTS), SPHERE), arguments)
    except KeyboardInterrupt:
        raise SystemExit("Interrupted: the same command goes on after the runs that are finished.") from None
    except (ConfigError, ValueError, RuntimeError) as error:
        raise SystemExit(f"python -m toybox.compare: {error}") from None


if __name__ == "__main__":
    main()
