"""The memory table: every plan of every number of views, and what it chooses on each card."""

from __future__ import annotations

import argparse
import sys

import pytest

import memory as script
from training.memory_plan import MemoryPlan, plans


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans that need 10 GB for each view at a time, or 1 GB each where these are encoded singly."""

    def needed(config: object, prior: object, plan: MemoryPlan) -> int:
        return plan.views_at_once * (1 if plan.encode_singly else 10) * 10**9

    monkeypatch.setattr(script, "needed_bytes", needed)
    monkeypatch.setattr(script, "guidance_bytes", needed)


def rows(printed: str) -> list[list[str]]:
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


@pytest.mark.usefixtures("quick")
def test_the_table_is_whole(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["memory.py", "--views", "1", "4"])
    script.main()
    found = rows(capsys.readouterr().out)
    cut = next(index for index, row in enumerate(found) if row[0] == "card, GB")
    header, _, *lines = found[:cut]
    assert {len(line) for line in lines} == {len(header)}
    assert [line[3] for line in lines] == [str(plan) for views in (1, 4) for plan in plans(views)]
    # U-Net and autoencoder in half precision.
    assert {line[5] for line in lines} == {"1.9"}
    assert [line[6] for line in lines] == ["10.0", "1.0", "40.0", "4.0", "2.0", "1.0"]
    cards = {line[0]: line[1:] for line in found[cut + 2 :]}
    assert list(cards) == [str(card) for card in script.CARDS]
    assert cards["8"] == ["1, encoded singly", "4, encoded singly"]
    assert cards["16"] == ["1", "4, encoded singly"]
    assert cards["80"] == ["1", "4"]


@pytest.mark.thorough
def test_what_is_computed_is_near_what_a_process_grows_by() -> None:
    """Float32 at 64² is where libraries' own memory weighs the most."""
    arguments = argparse.Namespace(views=[2], size=64)
    [line] = script.checked(arguments, "sds", "CFG")
    computed, measured = map(float, rows(line)[0][3:5])
    assert 0.3 * measured < computed < 1.1 * measured
