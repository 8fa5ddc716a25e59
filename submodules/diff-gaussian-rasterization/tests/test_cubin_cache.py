"""Cache on disk: hits, damage, several processes at once, and disks that cannot be written to."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import time
from pathlib import Path

import pytest

from diff_gaussian_rasterization import cubin_cache

IMAGE = bytes(range(256)) * 40
DAY = 24 * 3600


class Build:
    """Maker of IMAGE, which counts how often it had to."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> bytes:
        self.calls += 1
        return IMAGE


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; its folder for sm_90."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "diff-gaussian-rasterization" / "sm_90"


@pytest.fixture
def entry(home: Path) -> Path:
    """The file of the one entry that there is, of inputs ["source"]."""
    cubin_cache.fetch("sm_90", ["source"], Build())
    (path,) = home.iterdir()
    return path


@pytest.mark.usefixtures("home")
def test_built_once_per_architecture_and_inputs() -> None:
    build = Build()
    distinct = [
        ("sm_90", ["a", "b"]),
        ("sm_80", ["a", "b"]),
        ("sm_90", ["ab"]),
        ("sm_90", ["b", "a"]),
        ("sm_90", ["a", "b", ""]),
    ]
    for _ in range(3):
        for architecture, inputs in distinct:
            assert cubin_cache.fetch(architecture, inputs, build) == IMAGE
    assert build.calls == len(distinct)


@pytest.mark.parametrize("position", [0, 31, 32, 5000, -1])
def test_a_damaged_entry_is_built_again_and_replaced(entry: Path, position: int) -> None:
    whole = bytearray(entry.read_bytes())
    whole[position] ^= 1
    entry.write_bytes(whole)
    assert_repaired(entry)


@pytest.mark.parametrize("length", [0, 10, 32, 33, len(IMAGE) + 31])
def test_a_truncated_entry_is_built_again_and_replaced(entry: Path, length: int) -> None:
    os.truncate(entry, length)
    assert_repaired(entry)


def assert_repaired(entry: Path) -> None:
    build = Build()
    for _ in range(2):
        assert cubin_cache.fetch("sm_90", ["source"], build) == IMAGE
    assert build.calls == 1
    assert list(entry.parent.iterdir()) == [entry]


def _hammer(entry: Path, start: multiprocessing.synchronize.Barrier, seed: int) -> None:
    rng = random.Random(seed)
    start.wait()
    for _ in range(60):
        if rng.random() < 0.3:
            entry.write_bytes(entry.read_bytes()[: rng.randrange(len(IMAGE))])
        assert cubin_cache.fetch("sm_90", ["source"], Build()) == IMAGE


def test_eight_processes_share_an_entry_that_is_damaged_again_and_again(entry: Path) -> None:
    context = multiprocessing.get_context("fork")
    start = context.Barrier(8)
    processes = [context.Process(target=_hammer, args=(entry, start, seed)) for seed in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 8
    cubin_cache.fetch("sm_90", ["source"], Build())
    assert list(entry.parent.iterdir()) == [entry]


def _die_before_the_rename() -> None:
    os.replace = lambda source, target: os._exit(9)
    cubin_cache.fetch("sm_90", ["source"], Build())


def test_a_killed_process_leaves_no_half_entry(home: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_die_before_the_rename)
    process.start()
    process.join()
    assert process.exitcode == 9
    (rest,) = home.iterdir()
    build = Build()
    assert cubin_cache.fetch("sm_90", ["source"], build) == IMAGE
    assert build.calls == 1
    os.utime(rest, times=(time.time() - 91 * DAY,) * 2)
    cubin_cache.fetch("sm_90", ["other source"], build)
    assert not rest.exists()


def test_entries_unused_for_90_days_are_removed(home: Path) -> None:
    for name, days in (("old", 91), ("recent", 89)):
        cubin_cache.fetch("sm_90", [name], Build())
        for path in home.iterdir():
            if path.stat().st_mtime > time.time() - DAY:
                os.utime(path, times=(time.time() - days * DAY,) * 2)
    assert len(list(home.iterdir())) == 1  # writing "recent" has removed "old"
    cubin_cache.fetch("sm_90", ["new"], Build())
    assert len(list(home.iterdir())) == 2


def test_reading_an_entry_keeps_it(entry: Path) -> None:
    os.utime(entry, times=(time.time() - 91 * DAY,) * 2)
    cubin_cache.fetch("sm_90", ["source"], Build())
    cubin_cache.fetch("sm_90", ["other source"], Build())
    assert entry.exists()


def test_a_folder_that_cannot_be_made_costs_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "a file, not a folder"
    blocked.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    with pytest.warns(UserWarning, match=r"could not be kept .* Not a directory"):
        assert cubin_cache.fetch("sm_90", ["source"], Build()) == IMAGE


def test_a_disk_that_fills_up_costs_a_warning_and_leaves_nothing(home: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # a write ends early, as on a full disk
    try:
        with pytest.warns(UserWarning, match="could not be kept .* File too large"):
            image = cubin_cache.fetch("sm_90", ["source"], Build())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert image == IMAGE
    assert list(home.iterdir()) == []


def test_a_user_without_a_home_gets_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.warns(UserWarning, match="home directory"):
        assert cubin_cache.fetch("sm_90", ["source"], Build()) == IMAGE


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for given in ("", "relative/path"):  # ignored, as the XDG specification has it
        monkeypatch.setenv("XDG_CACHE_HOME", given)
        assert cubin_cache.folder() == tmp_path / ".cache" / "diff-gaussian-rasterization"
