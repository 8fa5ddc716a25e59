"""The benchmark of threads beside a load: what it times, and that nothing goes on after it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import threads as script
import torch

from diff_gaussian_rasterization import cpu
from rasterizers import load


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Restore torch's threads, which a measurement chooses for its whole process."""
    number = torch.get_num_threads()
    yield
    torch.set_num_threads(number)


def test_ratios_are_of_the_rounds_own() -> None:
    def times(*both: float) -> list[script.Times]:
        return [(1.0, 2.0, each, 3.0) for each in both]

    one, two = script.Case(2, "one call", 1, "now"), script.Case(2, "one call", 2, "now")
    before = script.Case(2, "one call", 2, "before")
    found = {one: times(10, 100, 40), two: times(5, 100, 10), before: times(10, 50, 20)}
    row = script.row(two, found, first=1)
    assert (row.both, row.to_first, row.to_before) == (10, 0.5, 0.5)
    assert script.row(one, found, first=1).to_before is None


def test_both_builds_run_both_ways_beside_a_load(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The build before is this one, loaded again under another name; the load ends with the measurement."""
    started = []
    popen = load.subprocess.Popen
    spy = mock.Mock(side_effect=lambda *given: started.append(popen(*given)) or started[-1])
    monkeypatch.setattr(load.subprocess, "Popen", spy)
    small = ["--size", "16", "--count", "20", "--views", "2", "--repeats", "1", "--threads", "1", "2"]
    before = str(Path(cpu.__file__).parents[1])
    monkeypatch.setattr(sys, "argv", ["threads.py", *small, "--before", before, "--load", "1", "--json"])
    script.main()
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len({(row["way"], row["threads"], row["build"]) for row in rows}) == len(rows) == 8
    assert all(row["both"] > 0 for row in rows)
    assert [process.poll() for process in started] == [-9]
