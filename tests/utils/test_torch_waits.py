"""How torch's threads wait: the environment's word counts, and torch is not yet there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from utils.torch_waits import FEW, POLICY, SPINS, shorten

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("given", "spins"), [({}, FEW), ({SPINS: "7"}, "7"), ({POLICY: "active"}, None)], ids=str
)
def test_the_environment_wins(
    given: dict[str, str], spins: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = dict(given)
    monkeypatch.setattr("os.environ", environment)
    shorten()
    assert environment.get(SPINS) == spins


def test_what_train_imports_before_it_does_not_bring_torch() -> None:
    script = "import sys, config, utils.torch_waits; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
