"""A disk that is full from any write on: the run's losses, and its going on once there is room."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import config as configuration
from config import Config
from tests.changed import changed
from train import main, train
from utils import checkpoints, files
from utils.run_folder import RunFolder

NEEDED = {"config.yaml", "asset.ply", "result.json"}
"""Files without which a run ends with a sentence; it can miss checkpoints and the rest."""


@pytest.fixture
def config(tiny_config: Config) -> Config:
    keys = {
        "checkpoint_iterations": (3, 6),
        "save_video": True,
        "test_ratio": 1,
        "pro_frames_num": 3,
        "vis_interval": 5,
    }
    return changed(tiny_config, iterations=8, C_batch_size=1, densify_until_iter=0, **keys)


class Disk:
    """Disk that refuses the file number `full`, from 1, and the `lasts` - 1 after it."""

    def __init__(self, full: int, lasts: int) -> None:
        self.full, self.lasts, self.written = full, lasts, 0
        self.refused: list[str] = []
        self._usual: Callable[..., None] = os.replace

    def replace(self, source: Path, target: Path) -> None:
        self.written += 1
        if self.full <= self.written < self.full + self.lasts:
            self.refused.append(Path(target).name)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._usual(source, target)


def run_on(disk: Disk, config: Config, monkeypatch: pytest.MonkeyPatch) -> int:
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", disk.replace)
        return main(config)


@pytest.mark.parametrize(
    ("first", "every", "lasts"),
    [
        pytest.param(4, 9, 10**6, marks=pytest.mark.slow, id="for good, from some files on"),
        pytest.param(1, 1, 1, marks=pytest.mark.thorough, id="once, at each file"),
        pytest.param(1, 1, 10**6, marks=pytest.mark.thorough, id="for good, from each file on"),
    ],
)
def test_a_full_disk_costs_what_could_not_be_written_only(
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    first: int,
    every: int,
    lasts: int,
) -> None:
    whole = train(config, tmp_path / "whole").run
    expected = whole.asset.read_bytes()
    counting = Disk(10**6, 1)
    assert run_on(counting, changed(config, workspace="count"), monkeypatch) == 0
    assert counting.written > 20
    for full in range(first, counting.written + 1, every):
        disk, workspace = Disk(full, lasts), f"full-at-{full}"
        capsys.readouterr()
        code = run_on(disk, changed(config, workspace=workspace), monkeypatch)
        assert code == (1 if NEEDED & set(disk.refused) else 0), disk.refused
        error = capsys.readouterr().err
        assert "Traceback" not in error
        if code == 1:
            assert "No space left on device" in error
        folders = [RunFolder(file.parent) for file in (Path("outputs") / workspace).rglob("config.yaml")]
        if not folders:
            assert "config.yaml" in disk.refused
            continue
        (run,) = folders
        assert not list(run.root.rglob(".*tmp*"))
        if code == 0:
            assert run.asset.read_bytes() == expected
            continue
        # What the disk took before it was full is there.
        kept = [step for step in (3, 6) if not any(f"iteration_{step}." in name for name in disk.refused)]
        assert checkpoints.steps_in(run.checkpoints) == kept
        resumed = train(configuration.load(["--resume", str(run.root), "--quiet"]))
        assert resumed.run.asset.read_bytes() == expected
