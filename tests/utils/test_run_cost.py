"""Cost of a run, written and read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from utils.run_cost import RunCost


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path, cost = tmp_path / "result.json", RunCost(75.25, 1.5, 6000, 3.5, "a machine", 140.5)
    cost.write(path)
    assert RunCost.read(path) == cost
    # As earlier versions wrote it.
    path.write_text(path.read_text().replace(',\n "core_seconds": 140.5', ""))
    assert RunCost.read(path) == replace(cost, core_seconds=None)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"seconds": "many"}', "null"])
def test_another_file_is_one_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"^{path} is not [^\n]*[.]$"):
        RunCost.read(path)
