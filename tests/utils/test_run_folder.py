"""Run folders never collide, and their names are safe."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.run_folder import RunFolder, slug


def test_runs_of_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    roots = {RunFolder.create("toys", "a red mug", tmp_path).root for _ in range(5)}
    assert len(roots) == 5
    assert all(root.is_dir() and root.parent == tmp_path / "toys" for root in roots)


def test_a_prompt_cannot_leave_the_outputs_folder(tmp_path: Path) -> None:
    root = RunFolder.create("../..", "../../etc/passwd", tmp_path).root
    assert root.resolve().is_relative_to(tmp_path.resolve())


def test_names_of_runs_are_safe_in_paths() -> None:
    assert slug("../../etc/A red mug!") == "etc-a-red-mug"
    assert slug("…") == "run"
    assert len(slug("a " * 500)) <= 60


def test_a_place_that_takes_no_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "outputs").touch()
    with pytest.raises(
        OSError, match=r"outputs/x cannot be written \(Not a directory\), but a run's files go"
    ):
        RunFolder.create("x", "a mug", tmp_path / "outputs")
