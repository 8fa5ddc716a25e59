"""Training runs that are made once: found again by their configuration, several at a time in processes of their own."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import signal
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import config as configuration
from config import Config
from scene.gaussian_model import GaussianModel
from toybox.assess import Assessment, assess
from train import train
from utils.files import write_text
from utils.run_folder import RunFolder, slug

LEAN = (
    "--quiet",
    "--save_video",
    "false",
    "--save_process",
    "false",
    "--test_ratio",
    "1",
    "--save_ratio",
    "1",
)
"""Command line of a run that only its asset is wanted of."""

Settings = Mapping[str, str]
"""Flags of the command line, by key."""


@dataclass(frozen=True)
class Outcome:
    """A finished run: what the judge and the truth say, the seconds of its loop, U-Net evaluations per view and
    iteration, and its files."""

    assessment: Assessment
    seconds: float
    evaluations: float
    folder: RunFolder

    @property
    def gaussians(self) -> GaussianModel:
        return GaussianModel.load_ply(self.folder.asset)


class Archive:
    """Outcomes as JSON files named after the run and a hash of its configuration, each whole or not there."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, config: Config) -> Outcome | None:
        """The outcome of that very configuration, if there is one and its files are still there."""
        for path in self.root.glob(f"*-{_key(config)}.json"):
            record = json.loads(path.read_text(encoding="utf-8"))
            folder = RunFolder(Path(record.pop("folder")))
            if _features(folder).exists():
                record["assessment"]["features"] = np.load(_features(folder))
                return Outcome(Assessment(**record.pop("assessment")), folder=folder, **record)
        return None

    def add(self, name: str, config: Config, outcome: Outcome) -> None:
        record = asdict(outcome)
        np.save(_features(outcome.folder), record["assessment"].pop("features"))
        record["folder"] = outcome.folder.root.as_posix()
        write_text(self.root / f"{slug(name)}-{_key(config)}.json", json.dumps(record, indent=1))


def lean_config(opt: str, settings: Settings) -> Config:
    """A configuration file with other settings, of which only the asset is wanted.

    Raises ConfigError if the settings are impossible together.
    """
    words = [word for key, value in settings.items() for word in (f"--{key}", value)]
    return configuration.load(["--opt", opt, *LEAN, *words])


@dataclass(frozen=True)
class Bench:
    """A configuration file whose runs differ by settings, and where they are kept; common: settings of all of them."""

    opt: str
    archive: Archive
    common: Settings = field(default_factory=dict)

    def config(self, prompt: str, seed: int, settings: Settings) -> Config:
        """Raises ConfigError if the settings are impossible together."""
        named = {"text": prompt, "seed": str(seed), "workspace": "compare"}
        return lean_config(self.opt, {**named, **self.common, **settings})

    def outcome(self, prompt: str, seed: int, settings: Settings) -> Outcome | None:
        return self.archive.find(self.config(prompt, seed, settings))


def _key(config: Config) -> str:
    return hashlib.sha256(configuration.dump(config).encode()).hexdigest()[:12]


def _features(folder: RunFolder) -> Path:
    return folder.root / "judge_features.npy"


def evaluations_per_view(folder: RunFolder) -> float:
    """Mean over the iterations that the run logged."""
    events = EventAccumulator(str(folder.root), size_guidance={"scalars": 0}).Reload()
    return float(np.mean([event.value for event in events.Scalars("guidance/unet_evals_per_view")]))


def run(name: str, config: Config, archive: Archive) -> Outcome:
    """Train, assess, and put the outcome into the archive."""
    result = train(config)
    assessment = assess(result.gaussians, config.guidance.text, config)
    outcome = Outcome(assessment, result.seconds, evaluations_per_view(result.run), result.run)
    archive.add(name, config, outcome)
    return outcome


def run_missing(configs: Mapping[str, Config], archive: Archive, jobs: int) -> None:
    """Make the runs that the archive does not have, in their order, in `jobs` processes that share the cores.

    configs: by the name that the run is to be known by. A run that fails is told in one line and the others go on. An
    interruption loses the runs under way.
    """
    missing: dict[str, tuple[str, Config]] = {}
    for name, config in configs.items():
        if archive.find(config) is None:
            missing.setdefault(_key(config), (name, config))
    if not missing or not jobs:
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _start_worker, (threads,))
    futures = {pool.submit(run, name, config, archive): name for name, config in missing.values()}
    try:
        for number, future in enumerate(as_completed(futures), start=1):
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                raise RuntimeError(
                    "a process of the runs died, perhaps for want of memory; the same command goes on"
                )
            said = f"failed: {error}" if error else _said(future.result())
            print(f"[{number} of {len(futures)}] {futures[future]}: {said}", flush=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _said(outcome: Outcome) -> str:
    return f"{outcome.seconds:.0f} s. {outcome.assessment}"


def _start_worker(threads: int) -> None:
    # Ctrl-C reaches every process; the parent tells what happened.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    torch.set_num_threads(threads)


def machine() -> str:
    """What the seconds were measured on."""
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
