"""Cost of a run, written and read."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.run_cost import RunCost


def test_what_is_written_is_read(tmp_path: Path) -> None:
    cost = RunCost(75.25, 1.5, 6000, 3.5, "a machine")
    cost.write(tmp_path / "result.json")
    assert RunCost.read(tmp_path / "result.json") == cost


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"seconds": "many"}', "null"])
def test_another_file_is_one_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"^{path} is not [^\n]*[.]$"):
        RunCost.read(path)
