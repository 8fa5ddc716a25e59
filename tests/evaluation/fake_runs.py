"""Runs that take no time, and runs that go wrong, for the tests of workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import config as configuration
from config import Config
from evaluation.suite import Run
from utils.files import write_bytes, write_text
from utils.run_cost import RunCost
from utils.run_folder import RunFolder, slug


def run_of(prompt: str, seed: int = 0, **settings: str | int) -> Run:
    """A run of three iterations, whose attempts are counted in the folder that the negative prompt names."""
    words = {"text": prompt, "seed": seed, "workspace": "runs", "iterations": 3, "fast": "false", **settings}
    config = configuration.load([f"--{key}={value}" for key, value in words.items()])
    return Run(str(settings.get("guidance_type", "sctd")), prompt, seed, config)


def finished(config: Config, outputs: Path, seconds: float = 60.0, evaluations: float = 2.0) -> Path:
    """Write a finished run, whose asset is its prompt and seed in letters, and return its folder."""
    run = RunFolder.create(config.model.workspace, config.guidance.text, outputs)
    write_text(run.config, configuration.dump(config))
    write_bytes(run.asset, f"{config.guidance.text}, {config.seed}".encode())
    RunCost(seconds, 1.5, 6000, evaluations, "a machine").write(run.result)
    return run.root


def attempts(folder: Path, prompt: str) -> int:
    file = folder / slug(prompt)
    return len(file.read_text().splitlines()) if file.exists() else 0


def task(config: Config, outputs: Path, on_step: Callable[[int], None]) -> Path:
    """Do what the prompt ends in: "dies once", "dies always", "fails once", "fails always"; otherwise finish a run."""
    prompt, folder = config.guidance.text, Path(config.guidance.negative)
    with (folder / slug(prompt)).open("a") as file:
        file.write("tried\n")
    first = attempts(folder, prompt) == 1
    print(f"this is {prompt}", flush=True)
    on_step(1)
    if prompt.endswith("always") or (prompt.endswith("once") and first):
        if "dies" in prompt:
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError(f"{prompt}, as asked")
    return finished(config, outputs)
