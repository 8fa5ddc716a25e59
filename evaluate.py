"""Numbers for finished runs, or for suites of runs, which it makes.

  python evaluate.py outputs/quickstart                      every finished run in a folder, or one run
  python evaluate.py --suite config/eval/toybox.yaml         prompts × methods × seeds: makes what is missing
  python evaluate.py --suite config/eval/table1.yaml --ray local

A run is found again by its whole configuration, and each scorer's numbers are kept beside it: the same command goes on
where it was interrupted. Prints a table with 95% intervals over the seeds, and writes it as table.md and results.json,
with a contact sheet, sheet.jpg.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from config import ConfigError
from config.guidance_params import TOY_PRIORS
from evaluation import suite as suites
from evaluation.runs import Archive, Outcome, finished_under
from evaluation.suite import Run, Suite
from utils.numbers import whole_number
from utils.torch_waits import shorten

SCORERS = dict.fromkeys(TOY_PRIORS, ("toybox",))
"""Scorers by prior; for other priors the papers' own."""
PAPER_SCORERS = ("clip", "fid", "image_reward")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python evaluate.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("paths", nargs="*", default=[], type=Path, help="run folders, or folders of runs")
    what.add_argument("--suite", type=Path, help="a YAML file of prompts, methods and seeds")
    add("--scorers", nargs="+", choices=[*PAPER_SCORERS, "toybox"], help="default: by the prior")
    add(
        "--jobs", type=whole_number(1), metavar="N", help="runs at a time (default: one for each GPU, or one)"
    )
    add("--ray", metavar="ADDRESS", help="make the runs on a Ray cluster; local: on this machine's own")
    add("--clip", metavar="WEIGHTS", help="hub id or folder of CLIP")
    add("--inception", metavar="WEIGHTS", help="file or address of FID's Inception v3")
    add("--image_reward", metavar="WEIGHTS", help="hub id, folder or file of ImageReward")
    add(
        "--fid_images",
        type=whole_number(1),
        metavar="N",
        help="images that FID compares with (the paper: 50000)",
    )
    add("--out", type=Path, help="folder of the results (default: outputs/evaluation/<suite>)")
    add("--dry_run", action="store_true", help="list the runs and which are finished, and make none")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    given = arguments(argv)
    shorten()  # for the runs, which are processes of their own
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    # Said by every run, in its log.
    logging.getLogger("config").setLevel(logging.ERROR)
    try:
        return evaluate(given)
    except KeyboardInterrupt:
        print("Interrupted: the same command goes on after what is finished.", file=sys.stderr)
        return 130
    except (ConfigError, ValueError, OSError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 1


def evaluate(given: argparse.Namespace) -> int:
    failures: dict[str, str] = {}
    if given.suite is None:
        outcomes = [outcome for path in given.paths for outcome in finished_under(path)]
        suite, found = suites.of_outcomes(given.paths[0].name or "runs", outcomes)
    else:
        suite = suites.load(given.suite)
        archive = Archive(suite.config.model.workspace)
        if not given.dry_run:
            failures = make(suite, archive, given)
        found = {run: outcome for run in suite.runs if (outcome := archive.find(run.config))}
    if given.dry_run:
        print("\n".join(f"{'finished' if run in found else 'to make '}  {run.name}" for run in suite.runs))
        print(f"{len(found)} of {len(suite.runs)} runs are finished.")
        return 0
    if not found:
        raise ValueError("no run is finished, so there is nothing to say.")
    report(suite, found, failures, given)
    return 1 if failures else 0


def make(suite: Suite, archive: Archive, given: argparse.Namespace) -> dict[str, str]:
    """Make the runs that are missing; return why some failed."""
    from evaluation import spread
    from evaluation.cluster import RayTasks
    from evaluation.processes import Processes

    if not spread.missing(suite.runs, archive):
        return {}
    if given.ray:
        return spread.make(suite.runs, archive, RayTasks(given.ray))
    from utils.device import accelerators

    return spread.make(suite.runs, archive, Processes(given.jobs, accelerators()))


def report(
    suite: Suite, found: dict[Run, Outcome], failures: dict[str, str], given: argparse.Namespace
) -> None:
    from evaluation.report import write_report
    from evaluation.scorers import ScorerOptions

    names = given.scorers or SCORERS.get(suite.config.guidance.model_key, PAPER_SCORERS)
    chosen = ("clip", "inception", "image_reward", "fid_images")
    options = ScorerOptions(**{key: getattr(given, key) for key in chosen if getattr(given, key) is not None})
    out = given.out or Path("outputs/evaluation") / suite.name
    write_report(suite, found, failures, names, options, out)


if __name__ == "__main__":
    sys.exit(main())
