"""Search for finished runs: by their whole configuration, and in folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.runs import Archive, Outcome, finished_under
from tests.evaluation.fake_runs import finished, run_of
from utils.run_folder import RunFolder


def test_a_run_is_found_by_its_configuration_alone(tmp_path: Path) -> None:
    run = run_of("a red mug", guidance_scale=7)
    root = finished(run.config, tmp_path)
    archive = Archive(outputs=tmp_path)
    found = archive.find(run.config)
    assert found == Outcome.read(root)
    assert found.config == run.config
    # A value that is the configuration's own makes the same run, named or not.
    assert archive.find(run_of("a red mug", guidance_scale=7, phase_num=5).config) == found
    assert archive.find(run_of("a red mug", guidance_scale=7, phase_num=4).config) is None
    assert archive.find(run_of("a red mug", seed=1, guidance_scale=7).config) is None


@pytest.mark.parametrize("gone", ["asset", "result"])
def test_a_run_without_its_files_is_not_finished(tmp_path: Path, gone: str) -> None:
    run = run_of("a red mug")
    root = finished(run.config, tmp_path)
    archive = Archive(outputs=tmp_path)
    getattr(RunFolder(root), gone).unlink()
    for each in (archive, Archive(outputs=tmp_path)):
        assert each.find(run.config) is None
    with pytest.raises(ValueError, match=rf"has no {getattr(RunFolder(root), gone).name}: .*[.]$"):
        finished_under(root)


def test_folders_of_runs_are_searched_and_what_is_unfinished_is_left_out(tmp_path: Path) -> None:
    roots = [finished(run_of(prompt).config, tmp_path) for prompt in ("b", "a")]
    broken = finished(run_of("c").config, tmp_path)
    RunFolder(broken).result.write_text("{}")
    RunFolder(finished(run_of("d").config, tmp_path)).asset.unlink()
    assert [outcome.folder.root for outcome in finished_under(tmp_path)] == sorted(roots)
    assert [outcome.folder.root for outcome in finished_under(roots[0])] == roots[:1]


def test_a_folder_without_runs_is_one_sentence(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(ValueError, match=rf"^{path} [^\n]*[.]$"):
            finished_under(path)
