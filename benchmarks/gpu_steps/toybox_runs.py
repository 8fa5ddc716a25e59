"""Step b: train.py on toybox, whose truth is known, with and without compiling, and twice with the deterministic switch."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

from .step import ROOT, Context, last_lines, main, program

DETERMINISTIC = ("--deterministic", "true", "--compile", "false")
RUNS = {
    "plain": ("--compile", "false"),
    "deterministic": DETERMINISTIC,
    "deterministic, again": DETERMINISTIC,
    "compiled": ("--compile", "dynamic"),
}
SMALL = [
    "--iterations",
    "10",
    "--init_shape",
    "sphere",
    "--init_num_pts",
    "300",
    "--image_w",
    "32",
    "--image_h",
    "32",
    "--C_batch_size",
    "1",
]
"""Flags of a rehearsal."""


def flags_of(context: Context, name: str) -> list[str]:
    """Flags of a run; in a rehearsal few, and nothing is compiled."""
    flags = ["--device", context.device, "--quiet", "--save_video", "false", "--save_process", "false"]
    flags += ["--fast", "false", *RUNS[name]]
    return [*flags, *SMALL, "--compile", "false"] if context.rehearsal else flags


def train(context: Context, name: str) -> dict[str, Any]:
    """Seconds in all and of the loop, iterations per second, GB at most, what the judge finds, and the asset's hash."""
    outputs = context.work / re.sub(r"\W+", "-", name)
    outputs.mkdir(parents=True, exist_ok=True)
    done = program([sys.executable, str(ROOT / "train.py"), *flags_of(context, name)], outputs)
    if done.code:
        raise RuntimeError(f"train.py ended with exit code {done.code}: {last_lines(done.output, 2)}")
    return {"seconds": round(done.seconds, 1), "lines": log_of(done.output), **what_is_left(outputs)}


def what_is_left(outputs: Path) -> dict[str, Any]:
    """Read the figures of the last run under a folder in which train.py was called."""
    [*_, root] = sorted(outputs.glob("outputs/*/*"))
    cost = json.loads((root / "result.json").read_text())
    settings = (root / "config.yaml").read_text()
    iterations = int(re.findall(r"^\s*iterations: (\d+)", settings, re.MULTILINE)[0])
    return {
        "loop": round(cost["seconds"], 2),
        "iterations per second": round(iterations / cost["seconds"], 2),
        "GB": round(cost["peak_memory"], 2),
        "Gaussians": cost["gaussians"],
        "asset": hashlib.sha256((root / "save" / "asset.ply").read_bytes()).hexdigest(),
    }


def log_of(output: str) -> list[str]:
    """Return what train.py printed but for where its files are."""
    lines = [line.strip() for line in output.splitlines()]
    return [line for line in lines if line and not line.startswith("Asset ")][-12:]


def run(context: Context) -> None:
    for name in RUNS:
        context.records.once(name, partial(train, context, name))


if __name__ == "__main__":
    main(run)
