"""Runs in processes: each is made once, in spite of those that fail or die."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation.processes import Processes
from evaluation.runs import Archive
from evaluation.spread import Event, Made, make, missing
from evaluation.suite import Run
from tests.evaluation.fake_runs import attempts, run_of, task


@pytest.fixture
def counts(tmp_path: Path) -> Path:
    (tmp_path / "counts").mkdir()
    return tmp_path / "counts"


def runs_of(counts: Path, *prompts: str) -> list[Run]:
    return [run_of(prompt, negative=str(counts)) for prompt in prompts]


def test_a_run_that_fails_or_dies_costs_only_its_own_repetition(
    counts: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prompts = ("one", "this dies once", "this fails once", "this fails always", "two")
    runs = runs_of(counts, *prompts)
    archive = Archive(outputs=tmp_path)
    failures = make([*runs, runs[0]], archive, Processes(2, outputs=tmp_path, task=task))

    assert [attempts(counts, prompt) for prompt in prompts] == [1, 2, 2, 2, 1]
    for run in runs:
        outcome = archive.find(run.config)
        if run.prompt == "this fails always":
            assert outcome is None
            continue
        assert outcome is not None
        assert outcome.folder.asset.read_text() == f"{run.prompt}, 0"
        assert outcome.folder.log.read_text() == f"this is {run.prompt}\n"
    assert list(failures) == ["sctd, this fails always, seed 0"]

    said = capfd.readouterr().err
    assert said.count("It is repeated once.") == 3
    assert "was killed by SIGKILL" in said
    logs = sorted((archive.root / "logs").iterdir())
    assert [str(log) in said for log in logs] == [True] * 4
    last = [log for log in logs if "always" in log.name and log.name.endswith("-2.log")]
    assert str(last[0]) in failures["sctd, this fails always, seed 0"]
    assert "ValueError: this fails always, as asked" in last[0].read_text()
    assert last[0].read_text().startswith("this is this fails always\n")

    # Another command, later: only what failed is tried again.
    again = Archive(outputs=tmp_path)
    assert [run.prompt for run in missing(runs, again)] == ["this fails always"]
    make(runs, again, Processes(outputs=tmp_path, task=task))
    assert [attempts(counts, prompt) for prompt in prompts] == [1, 2, 2, 4, 1]


def test_an_interruption_leaves_what_is_finished_and_stops_the_rest(counts: Path, tmp_path: Path) -> None:
    class Interrupted(Processes):
        def wait(self) -> Iterator[Event]:
            under_way.extend(busy.process for busy in self._busy.values())
            for event in super().wait():
                yield event
                if isinstance(event, Made):
                    raise KeyboardInterrupt

    under_way: list = []
    runs = runs_of(counts, "one", "two", "three")
    with pytest.raises(KeyboardInterrupt):
        make(runs, Archive(outputs=tmp_path), Interrupted(2, outputs=tmp_path, task=task))
    assert not any(process.is_alive() for process in under_way)
    left = missing(runs, Archive(outputs=tmp_path))
    assert "three" in [run.prompt for run in left]
    assert len(left) < 3


@pytest.mark.thorough  # torch is imported in each process
def test_each_place_has_an_accelerator_of_its_own(counts: Path, tmp_path: Path) -> None:
    prompts = ("one", "two", "three")
    runs = runs_of(counts, *prompts)
    make(runs, Archive(outputs=tmp_path), Processes(accelerators=("3", "GPU-5"), outputs=tmp_path, task=seen))
    found = [(counts / prompt).read_text() for prompt in prompts]
    # The first two side by side, the third where one of them was.
    assert set(found) == {"3", "GPU-5"}


def seen(config, outputs, on_step):  # type: ignore[no-untyped-def]
    import os

    (Path(config.guidance.negative) / config.guidance.text).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
    raise ValueError("that was all")
