"""Measure and test all that a GPU has to prove, in ten minutes: python benchmarks/gpu.py --out FOLDER

Runs, in order of worth and each within a time of its own: the tests that need a GPU; train.py on toybox; the rasterizer
beside its peers; the training iteration on Stable Diffusion 2.1-base's architecture; train.py from start to resume on
random weights; NVIDIA's tools on our kernels. FOLDER/report.md has the tables of docs/performance.md, report.json all that
was found. A step that fails is reported with the end of its log, and the next one starts. A second call with the same
FOLDER goes on with what is missing.

Needs no network, and of ours nothing installed. --rehearse goes through all steps on this machine's processor, in a small
way: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from gpu_steps import machine
from gpu_steps.plan import STEPS, Step
from gpu_steps.report import write_report
from gpu_steps.runner import run

SLOWER = 6
"""Factor on a step's seconds that gives its limit in a rehearsal."""
DISK = 8e9
"""Bytes for a Stable Diffusion's folder, a run and their logs."""


def parse(argv: Sequence[str] | None, steps: Sequence[Step]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="for all steps together")
    names = ", ".join(step.name for step in steps)
    parser.add_argument("--only", nargs="+", metavar="STEP", help=f"of {names}, or their letters")
    parser.add_argument("--out", type=Path, help="a folder, which may have results of an earlier call")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and what is missing, and end")
    parser.add_argument("--rehearse", action="store_true", help="small, and on the processor")
    found = parser.parse_args(argv)
    for word in found.only or ():
        if not any(is_called(step, word) for step in steps):
            parser.error(f"--only is {word}, but it must be one of {names}.")
    if found.minutes <= 0:
        parser.error(f"--minutes is {found.minutes:g}, but it must be above 0.")
    if found.out is None and not found.dry_run:
        parser.error("--out is missing, but it must name a folder.")
    found.out = found.out and found.out.resolve()
    return found


def is_called(step: Step, word: str) -> bool:
    """Return whether `word` is the step's name or its letter."""
    return word in (step.name, step.name.split("-")[0])


def show_plan(steps: Sequence[Step]) -> None:
    print("| step | what | seconds at most | missing |\n|---|---|---|---|")
    for step in steps:
        early = ", prepares itself during the steps before" if step.prepares else ""
        print(f"| {step.name} | {step.title}{early} | {step.seconds:.0f} | {', '.join(step.missing())} |")


def main(argv: Sequence[str] | None = None, steps: Sequence[Step] = STEPS) -> int:
    arguments = parse(argv, steps)
    words = arguments.only or [step.name for step in steps]
    chosen = [step for step in steps if any(is_called(step, word) for word in words)]
    if arguments.dry_run:
        show_plan(chosen)
        return 0
    missing = sorted({name for step in chosen for name in step.missing()})
    if "torch" in missing:
        print(f"gpu.py: this Python lacks {', '.join(missing)}.", file=sys.stderr)
        return 2
    if not arguments.rehearse and not machine.has_gpu():
        print(
            "gpu.py: torch sees no NVIDIA GPU here; --rehearse goes through the steps without one.",
            file=sys.stderr,
        )
        return 2
    if not arguments.rehearse and (free := machine.free_of(arguments.out)) < DISK:
        print(
            f"gpu.py: {arguments.out} has {free / 1e9:.1f} GB free, but needs {DISK / 1e9:.0f} GB.",
            file=sys.stderr,
        )
        return 2
    if missing:
        print(f"Missing, and steps left out for it: {', '.join(missing)}", flush=True)
    if why := machine.build_rasterizer():
        print(why, flush=True)
    began = time.monotonic()
    found, software = {"at the start": machine.card()}, machine.software()
    out, device = arguments.out, "cuda"
    if arguments.rehearse:
        # Apart from what a GPU finds in the same folder.
        out, device = out / "rehearsal", "cpu"
        chosen = [replace(step, seconds=SLOWER * step.seconds) for step in chosen]

    def report() -> Path:
        """Write the report of all steps that have ended, in earlier calls too."""
        found["at the end"] = machine.card()
        return write_report(out, steps, found, software, time.monotonic() - began)

    outcomes = run(chosen, out, device, machine.environment(), 60 * arguments.minutes, report)
    print(f"Report: {report()}")
    return 0 if all(outcome.state == "done" for outcome in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
