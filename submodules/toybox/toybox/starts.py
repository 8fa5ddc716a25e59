"""`python -m toybox.starts`: toybox's assets from Point-E's clouds against those from a sphere, as tables and a picture.

Run in the root of the project's checkout. Finished runs are kept under outputs/compare: the same command goes on where
it was interrupted. All settings but the start and its learning rates are the configuration's.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t as students_t
from torch import Tensor
from tqdm import tqdm

import point_e
from config import Config, ConfigError
from gaussian_renderer import Gaussians
from point_e import PointCloud, PointE
from scene.point_cloud import upright
from scene.pointe import TOYBOX_AXES
from toybox import weights_path
from toybox.captions import HELD_OUT, PAIRS, TRAINING, caption, parse
from toybox.compare import MEANS, RESULTS, marked, mean_cells, table_head, table_line
from toybox.point_judge import PointVerdict, judge_points
from toybox.runs import Archive, Bench, Outcome, machine, run_missing
from toybox.sheets import asset_sheet
from toybox.splats import Splats
from toybox.start_settings import START_NAMES, start_settings
from utils.media import write_jpeg

PROMPTS = (
    ("mushroom", "red"), ("snowman", "blue"), ("mug", "purple"), ("car", "yellow"), ("rocket", "purple"),
    ("house", "orange"), ("duck", "green"), ("chair", "red"), ("car", "blue"), ("mushroom", "orange"),
)  # fmt: skip
"""Every kind, every colour, and three pairs that training never saw."""
STARTS = ("pointe", "sphere")
NAMES = {"pointe": "Point-E", "sphere": "sphere", "rough": "rough points"}
TABLES = ("runs", "clouds")
POINT_SIZE = 0.02
"""Standard deviation of a point in a picture, in world units."""
AZIMUTHS = (30.0, 120.0, 210.0, 300.0)

Key = tuple[str, int]
"""Prompt and seed."""


@cache
def _pipeline() -> PointE:
    return point_e.load(str(weights_path() / "point_e"))


def point_e_cloud(prompt: str, seed: int) -> PointCloud:
    """What toybox's Point-E makes of a prompt, as toys stand: z up, front +x. Raises PointEError without its weights."""
    made = _pipeline().from_text(prompt, seed=seed, progress=False)
    return PointCloud(upright(made.points, TOYBOX_AXES), made.colors)


def verdict_on(cloud: PointCloud) -> PointVerdict:
    return judge_points(cloud.points.double().numpy(), cloud.colors.double().numpy())


def as_splats(cloud: PointCloud) -> Splats:
    """Small round Gaussians, to be looked at."""
    count = len(cloud.points)
    return Splats(
        means=cloud.points,
        scales=torch.full((count, 3), POINT_SIZE),
        rotations=torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(count, 4).contiguous(),
        opacities=torch.full((count, 1), 0.97),
        colors=cloud.colors,
    )


@dataclass(frozen=True)
class Comparison:
    """Which runs are compared: the first start with the others, for every prompt and seed."""

    bench: Bench
    starts: Sequence[str]
    prompts: Sequence[str]
    seeds: Sequence[int]

    def config(self, start: str, prompt: str, seed: int) -> Config:
        return self.bench.config(prompt, seed, start_settings(start, prompt, seed))

    def configs(self) -> dict[str, Config]:
        """By name; one seed after the other, so that an interrupted table is even."""
        return {
            f"{start}, {prompt}, seed {seed}": self.config(start, prompt, seed)
            for seed in self.seeds
            for prompt in self.prompts
            for start in self.starts
        }

    def outcome(self, start: str, prompt: str, seed: int) -> Outcome | None:
        return self.bench.archive.find(self.config(start, prompt, seed))

    def outcomes(self, start: str) -> dict[Key, Outcome]:
        """Those that there are."""
        found = {(p, s): self.outcome(start, p, s) for p in self.prompts for s in self.seeds}
        return {key: outcome for key, outcome in found.items() if outcome is not None}


def paired_difference(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Mean of a - b, pair by pair, and half the width of its 95% confidence interval by Student's t (two pairs or more)."""
    apart = np.subtract(a, b)
    error = apart.std(ddof=1) / np.sqrt(len(apart))
    return float(apart.mean()), float(students_t.ppf(0.975, len(apart) - 1) * error)


def _differences(first: dict[Key, Outcome], other: dict[Key, Outcome]) -> list[str]:
    """Cells: how many pairs, then judge, Chamfer, Janus and PSNR, each with its interval."""
    both = [key for key in first if key in other]
    if len(both) < 2:
        return [str(len(both)), "", "", "", ""]
    cells = [str(len(both))]
    for name, form in (("recognised", "+.0%"), ("chamfer", "+.2f"), ("janus", "+.1%"), ("psnr", "+.1f")):
        values = ([getattr(runs[key].assessment, name) for key in both] for runs in (first, other))
        mean, half = paired_difference(*values)
        cells.append(f"{mean:{form}} [{mean - half:{form}}, {mean + half:{form}}]")
    return cells


def table(comparison: Comparison) -> str:
    """Markdown: a line of means for each start; the first start's lead; judge's accuracy and PSNR of each run."""
    found = {start: comparison.outcomes(start) for start in comparison.starts}
    config = comparison.config("sphere", comparison.prompts[0], comparison.seeds[0])
    means = table_head(["start", *MEANS])
    means += [
        table_line([NAMES[start], *mean_cells(list(runs.values()), config)]) for start, runs in found.items()
    ]
    first, *others = comparison.starts
    leads = table_head(["difference, 95% interval", "pairs", "judge", "Chamfer", "Janus", "PSNR"])
    leads += [
        table_line([f"{NAMES[first]} - {NAMES[other]}", *_differences(found[first], found[other])])
        for other in others
    ]
    by_prompt = table_head(["prompt", *(NAMES[start] for start in comparison.starts)])
    for prompt in comparison.prompts:
        runs = [[found[s][prompt, k] for k in comparison.seeds if (prompt, k) in found[s]] for s in found]
        cells = ("; ".join(outcome.assessment.short for outcome in some) for some in runs)
        by_prompt.append(table_line([marked(prompt), *cells]))
    return "\n".join([*means, "", *leads, "", *by_prompt])


def clouds_table(seeds: Sequence[int]) -> str:
    """Markdown: how many of Point-E's clouds of all pairs the point judge names right."""
    verdicts = {
        (pair, seed): verdict_on(point_e_cloud(caption(*pair), seed))
        for pair in tqdm(PAIRS, desc="clouds", unit="pair")
        for seed in seeds
    }
    lines = table_head(["pairs", "clouds", "kind", "colour", "both", "median distance"])
    for name, pairs in (("trained", TRAINING), ("held out", HELD_OUT), ("all", PAIRS)):
        found = [(pair, verdict) for (pair, _), verdict in verdicts.items() if pair in pairs]
        right = np.array([(v.kind == kind, v.color == color) for (kind, color), v in found])
        shares = [*right.mean(axis=0), right.all(axis=1).mean()]
        distance = np.median([v.distance for _, v in found])
        lines.append(
            table_line([name, str(len(found)), *(f"{share:.0%}" for share in shares), f"{distance:.3f}"])
        )
    return "\n".join(lines)


def sheet(comparison: Comparison) -> Tensor:
    """For each prompt a row: Point-E's cloud, then the asset from each start, of the first seed."""
    seed = comparison.seeds[0]

    def shown() -> Iterator[tuple[Gaussians | None, str, str]]:
        for prompt in comparison.prompts:
            cloud = point_e_cloud(prompt, seed)
            verdict = verdict_on(cloud)
            named = " ".join(word for word in (verdict.color, verdict.kind) if word)
            yield as_splats(cloud), marked(prompt), f"named: {named or 'none'}"
            for start in comparison.starts:
                outcome = comparison.outcome(start, prompt, seed)
                says = outcome.assessment.short if outcome else "not run"
                yield outcome.gaussians if outcome else None, f"from {NAMES[start]}", says

    config = comparison.config("sphere", comparison.prompts[0], seed)
    return asset_sheet(shown(), 1 + len(comparison.starts), config, AZIMUTHS)


def report(comparison: Comparison, arguments: argparse.Namespace) -> None:
    """Make the runs that are missing, then print the tables and write the sheet."""
    if "runs" in arguments.tables:
        run_missing(comparison.configs(), comparison.bench.archive, arguments.jobs)
        print(f"{machine()}\n\n{table(comparison)}")
    if "clouds" in arguments.tables:
        print(f"\n{clouds_table(comparison.seeds)}")
    if arguments.sheet:
        write_jpeg(arguments.sheet, sheet(comparison))


def main() -> None:
    prompts = [caption(*pair) for pair in PROMPTS]
    parser = argparse.ArgumentParser(prog="python -m toybox.starts", description=__doc__)
    parser.add_argument("--tables", nargs="+", default=TABLES, choices=TABLES, help="which")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time; 0: print what there is")
    parser.add_argument(
        "--seeds", type=int, default=2, choices=range(1, 11), metavar="N", help="for each prompt and pair"
    )
    parser.add_argument("--sheet", type=Path, help="file for the contact sheet of the first seed")
    parser.add_argument("--starts", nargs="+", default=STARTS, choices=START_NAMES, help="the first leads")
    parser.add_argument("--prompts", nargs="+", default=prompts, help="of the runs")
    parser.add_argument("--opt", default="config/quickstart.yaml", help="the configuration of the runs")
    arguments = parser.parse_args()
    logging.getLogger("config").setLevel(logging.ERROR)
    try:
        for prompt in arguments.prompts:
            parse(prompt)
        bench = Bench(arguments.opt, Archive(RESULTS))
        report(Comparison(bench, arguments.starts, arguments.prompts, range(arguments.seeds)), arguments)
    except KeyboardInterrupt:
        raise SystemExit("Interrupted: the same command goes on after the runs that are finished.") from None
    except (ConfigError, point_e.PointEError, ValueError, RuntimeError) as error:
        raise SystemExit(f"python -m toybox.starts: {error}") from None


if __name__ == "__main__":
    main()
