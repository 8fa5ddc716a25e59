"""Step e: train.py as users run it, on a folder of Stable Diffusion 2.1-base with random weights, killed and resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from .step import ROOT, Context, last_lines, main
from .timed_train import STARTED

ITERATIONS, CHECKPOINT, KILLED_AFTER = 200, 50, 60
REHEARSED = 40, 10, 20
COMPILE = {"cuda": "dynamic", "cpu": "false"}
SMALL = ["--init_num_pts", "300", "--image_w", "32", "--image_h", "32", "--C_batch_size", "2"]
"""Flags of a rehearsal."""


def write_prior(context: Context) -> Path:
    """The folder of the prior."""
    # The folders of the tests, which have the published configurations.
    from tests.stable_diffusions import SD21_BASE, write_folder
    from tests.tiny_diffusers import write_tiny_folder

    folder = context.work / "prior"
    shutil.rmtree(folder, ignore_errors=True)
    if context.rehearsal:
        return write_tiny_folder(folder)
    with torch.device(context.device):
        return write_folder(SD21_BASE, folder)


class Run:
    """A train.py at work, and what it has noted."""

    def __init__(self, context: Context, name: str, flags: list[str]) -> None:
        self._diary, self._log = context.work / f"{name}.jsonl", context.work / f"{name}.log"
        self._diary.unlink(missing_ok=True)
        command = [sys.executable, "-m", "gpu_steps.timed_train", str(self._diary), *flags]
        path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", STARTED: str(time.time()), "PYTHONPATH": path}
        with open(self._log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command,
                cwd=context.work,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def lines(self) -> list[dict[str, Any]]:
        text = self._diary.read_text() if self._diary.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def steps(self) -> list[tuple[int, float]]:
        """Iterations and when they ended, in seconds since the start."""
        return [(line["step"], line["at"]) for line in self.lines() if "step" in line]

    def wait_for(self, step: int) -> None:
        """Wait until an iteration from `step` on has ended. Raises RuntimeError if the process ends before."""
        while not any(done >= step for done, _ in self.steps()):
            if self.process.poll() is not None:
                raise RuntimeError(f"train.py ended with exit code {self.process.returncode}: {self.log()}")
            time.sleep(0.02)

    def finish(self) -> dict[str, Any]:
        """The last line. Raises RuntimeError if it ends otherwise."""
        if self.process.wait() != 0:
            raise RuntimeError(f"train.py ended with exit code {self.process.returncode}: {self.log()}")
        return self.lines()[-1]

    def log(self) -> str:
        return last_lines(self._log.read_text(encoding="utf-8"), 8)


def start_and_kill(context: Context) -> dict[str, Any]:
    """The start by part, the speed between points of the log, and when the run was killed."""
    prior = write_prior(context)
    shutil.rmtree(context.work / "outputs", ignore_errors=True)
    whole = ITERATIONS, CHECKPOINT, KILLED_AFTER
    iterations, checkpoint, killed = REHEARSED if context.rehearsal else whole
    flags = ["--opt", str(ROOT / "config" / "bagel.yaml"), "--model_key", str(prior)]
    # One graph: step d has left it in torch's cache.
    flags += [
        "--device",
        context.device,
        "--init_shape",
        "sphere",
        "--quiet",
        "--compile",
        COMPILE[context.device],
    ]
    flags += ["--iterations", str(iterations), "--checkpoint_iterations", str(checkpoint), *videos()]
    run = Run(context, "first", flags + (SMALL if context.rehearsal else []))
    try:
        run.wait_for(killed)
    finally:
        run.process.send_signal(signal.SIGKILL)
        run.process.wait()
    steps = run.steps()
    return {
        "parts": {line["part"]: round(line["seconds"], 2) for line in run.lines() if "part" in line},
        "first iteration ends at": round(steps[0][1], 2),
        "iterations per second": speeds(steps),
        "killed after": steps[-1][0],
        "videos": not videos(),
        "compile": COMPILE[context.device],
        "log": run.log(),
    }


def resume(context: Context) -> dict[str, Any]:
    """Seconds until the killed run goes on, its speed, and the most memory."""
    [root] = (context.work / "outputs" / "bagel").iterdir()
    run = Run(context, "second", ["--resume", str(root)])
    ended = run.finish()
    steps = run.steps()
    return {
        "goes on at": steps[0][0],
        "after": round(steps[0][1], 2),
        "parts": {line["part"]: round(line["seconds"], 2) for line in run.lines() if "part" in line},
        "iterations per second": speeds(steps),
        "GB": round(ended["GB"], 2),
        "asset": (root / "save" / "asset.ply").exists(),
    }


def speeds(steps: list[tuple[int, float]]) -> dict[str, float]:
    """Median, least and greatest of the iterations per second between points of the log."""
    found = [(b - a) / (until - since) for (a, since), (b, until) in pairwise(steps) if a > 1]
    if not found:
        return {}
    numbers = {"median": statistics.median(found), "least": min(found), "greatest": max(found)}
    return {name: round(number, 2) for name, number in numbers.items()}


def videos() -> list[str]:
    """Flags that leave videos out where there is no encoder."""
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return ["--save_video", "false", "--save_process", "false"]
    return []


def run(context: Context) -> None:
    context.records.once("run", lambda: {"start": start_and_kill(context), "resume": resume(context)})


if __name__ == "__main__":
    main(run)
