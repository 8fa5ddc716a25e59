"""The notebook docs/quickstart.ipynb, as it is stored, and run from top to bottom."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from config.command_line import flags

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"
ITERATIONS = 3


def code_cells() -> list[dict[str, Any]]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_it_is_stored_without_outputs() -> None:
    assert code_cells()
    for cell in code_cells():
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


def test_its_flags_and_files_are_there() -> None:
    commands = [line for cell in code_cells() for line in cell["source"] if " train.py " in line]
    assert len(commands) == 3
    for command in commands:
        assert set(re.findall(r"--(\w+)", command)) <= {"opt", *flags()}
        assert all((ROOT / path).is_file() for path in re.findall(r"--opt (\S+)", command))


@pytest.mark.thorough
def test_it_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    # A checkout whose outputs are its own; the last cell is to see no GPU, or it would download Stable Diffusion.
    for entry in ROOT.iterdir():
        if entry.name != "outputs":
            (tmp_path / entry.name).symlink_to(entry)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    [settings] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    settings.source += f"\nITERATIONS = {ITERATIONS}"

    NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(tmp_path)}}).execute()

    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    reports = [output.data["image/png"] for output in shown if "image/png" in output.get("data", {})]
    assert len(set(reports)) == 2
    assert sum("<video" in output.get("data", {}).get("text/html", "") for output in shown) == 2
    assert "no GPU" in shown[-1].text
    runs = sorted(run.name for run in (tmp_path / "outputs" / "quickstart").iterdir())
    assert [run.rpartition("-")[0].rpartition("-")[0] for run in runs] == [
        "a-blue-robot-on-a-pink-table-sds",
        "a-yellow-car-sctd",
    ]
