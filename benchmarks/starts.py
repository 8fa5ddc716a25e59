"""`python benchmarks/starts.py`: what Point-E makes of toys, as a table, and a picture of it beside the assets from it.

Run in the root of the project's checkout. The assets are those of config/eval/toybox-starts.yaml, which evaluate.py makes.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))

import point_e
from config import ConfigError
from evaluation import suite as suites
from evaluation.runs import Archive
from evaluation.scorers import ScorerOptions
from evaluation.scorers.toybox import ToyboxScorer
from evaluation.scores import score
from evaluation.sheet import Cell, asset_sheet
from evaluation.suite import Suite
from evaluation.table import aligned, short
from point_e import PointCloud, PointE
from scene.gaussian_model import GaussianModel
from scene.point_cloud import upright
from scene.pointe import TOYBOX_AXES
from toybox import weights_path
from toybox.captions import ALONE, HELD_OUT, STACKED, TRAINING, caption, parse
from toybox.point_judge import PointVerdict, judge_points, shape_of
from toybox.splats import Splats
from utils.device import resolve_device
from utils.media import write_jpeg

SUITE = Path("config/eval/toybox-starts.yaml")
POINT_SIZE = 0.02
"""Standard deviation of a point in a picture, in world units."""
AZIMUTHS = (30.0, 120.0, 210.0, 300.0)


@cache
def _pipeline() -> PointE:
    return point_e.load(str(weights_path() / "point_e"))


def point_e_cloud(prompt: str, seed: int) -> PointCloud:
    """Point-E's cloud of a prompt, made by toybox's, as toys stand: z up, front +x. Raises PointEError
    without its weights.
    """
    made = _pipeline().from_text(prompt, seed=seed, progress=False)
    return PointCloud(upright(made.points, TOYBOX_AXES), made.colors)


def verdict_on(cloud: PointCloud) -> PointVerdict:
    return judge_points(cloud.points.double().numpy(), cloud.colors.double().numpy())


def as_splats(cloud: PointCloud) -> Splats:
    """Small round Gaussians that show a cloud."""
    count = len(cloud.points)
    return Splats(
        means=cloud.points,
        scales=torch.full((count, 3), POINT_SIZE),
        rotations=torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(count, 4).contiguous(),
        opacities=torch.full((count, 1), 0.97),
        colors=cloud.colors,
    )


def table(seeds: Sequence[int]) -> str:
    """Markdown: how many of Point-E's clouds the point judge names right: all toys alone, and a quarter of those on tables."""
    groups = {
        "alone, trained": [name for name in ALONE if name in TRAINING],
        "alone, held out": [name for name in ALONE if name in HELD_OUT],
        "on a table, trained": [name for name in STACKED if name in TRAINING][::4],
        "on a table, held out": [name for name in STACKED if name in HELD_OUT][::4],
    }
    lines = [["toys", "clouds", "shape", "and colours", "median distance"]]
    for title, names in groups.items():
        found = [
            (name, verdict_on(point_e_cloud(caption(name), seed)))
            for name in tqdm(names, desc=title, unit="toy")
            for seed in seeds
        ]
        shapes = np.mean([verdict.shape == shape_of(name) for name, verdict in found])
        both = np.mean([verdict.name == name for name, verdict in found])
        distance = np.median([verdict.distance for _, verdict in found])
        lines.append([title, str(len(found)), f"{shapes:.0%}", f"{both:.0%}", f"{distance:.3f}"])
    return aligned(lines)


def sheet(suite: Suite, archive: Archive) -> Tensor:
    """Rows of one prompt each: Point-E's cloud, then each method's asset, of the first seed; a `*` marks
    held-out toys.
    """
    runs = {(run.method, run.prompt): run for run in suite.runs if run.seed == suite.seeds[0]}
    scorer = ToyboxScorer.load(ScorerOptions(), suite.prompts, suite.config, resolve_device(None))

    def cells() -> Iterator[Cell]:
        for prompt in suite.prompts:
            cloud = point_e_cloud(prompt, suite.seeds[0])
            verdict = verdict_on(cloud)
            marked = prompt + (" *" if parse(prompt) in HELD_OUT else "")
            yield as_splats(cloud), marked, f"named: {caption(verdict.name) if verdict.name else 'none'}"
            for method in suite.methods:
                run = runs[method, prompt]
                outcome = archive.find(run.config)
                if outcome is None:
                    yield None, f"from {method}", "not run"
                else:
                    says = short(score(run, outcome, [scorer]), scorer.columns[:1])
                    yield GaussianModel.load_ply(outcome.folder.asset), f"from {method}", says

    return asset_sheet(cells(), 1 + len(suite.methods), suite.config, AZIMUTHS)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python benchmarks/starts.py", description=__doc__)
    parser.add_argument(
        "--seeds", type=int, default=2, choices=range(1, 11), metavar="N", help="for each toy"
    )
    parser.add_argument("--sheet", type=Path, help="file for the picture; without it the table is made")
    arguments = parser.parse_args()
    logging.getLogger("config").setLevel(logging.ERROR)
    try:
        if arguments.sheet:
            write_jpeg(arguments.sheet, sheet(suites.load(SUITE), Archive()))
        else:
            print(table(range(arguments.seeds)))
    except (ConfigError, point_e.PointEError, ValueError) as error:
        raise SystemExit(f"python benchmarks/starts.py: {error}") from None


if __name__ == "__main__":
    main()
