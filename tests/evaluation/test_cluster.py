"""Runs on a cluster of Ray: the same as one after the other, and each lost worker costs one repetition."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from evaluation.cluster import Parcel, RayTasks, pack, unpack
from evaluation.processes import Processes
from evaluation.runs import Archive, Outcome
from evaluation.spread import make
from tests.evaluation.fake_runs import attempts, finished, run_of, task
from utils.run_folder import RunFolder


def test_a_run_that_came_back_from_elsewhere_is_finished_here(tmp_path: Path) -> None:
    config = run_of("a red mug").config
    there = finished(config, tmp_path / "there")
    parcel = Parcel(there.name, pack(there), b"", "")
    assert list(parcel.files)[-1] == RunFolder(there).result.name
    here = [unpack(parcel, config, tmp_path / "here") for _ in range(2)]
    assert here[0] != here[1]
    for root in here:
        outcome = Outcome.read(root)
        assert outcome.config == config
        assert outcome.folder.asset.read_bytes() == RunFolder(there).asset.read_bytes()
    assert Archive(outputs=tmp_path / "here").find(config) is not None


def test_ray_is_asked_for_only_if_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r'python -m pip install -e "[.]\[ray\]"[.]$'):
        RayTasks("local")


@pytest.mark.slow
def test_two_workers_make_what_one_makes_in_order_and_a_killed_one_costs_its_run_only(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from ray.cluster_utils import Cluster

    prompts = ("one", "two", "this dies once", "three", "this fails always")
    found = {}
    for place in ("order", "cluster"):
        counts, outputs = tmp_path / place / "counts", tmp_path / place / "outputs"
        counts.mkdir(parents=True)
        runs = [run_of(prompt, negative=str(counts)) for prompt in prompts]
        archive = Archive(outputs=outputs)
        if place == "order":
            failures = make(runs, archive, Processes(outputs=outputs, task=task))
        else:
            small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
            cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
            try:
                cluster.add_node(**small)
                cluster.wait_for_nodes()
                capfd.readouterr()
                failures = make(runs, archive, RayTasks(cluster.address, outputs, task))
            finally:
                cluster.shutdown()
        outcomes = [archive.find(run.config) for run in runs]
        said = capfd.readouterr().err
        assert list(failures) == ["sctd, this fails always, seed 0"]
        assert said.count("It is repeated once.") == 2
        assert [attempts(counts, prompt) for prompt in prompts] == [1, 1, 2, 1, 2]
        log = Path(failures["sctd, this fails always, seed 0"].split("(log: ")[1].split(")")[0])
        assert "ValueError: this fails always, as asked" in log.read_text()
        found[place] = [
            outcome and (outcome.folder.asset.read_bytes(), outcome.folder.log.read_text(), outcome.cost)
            for outcome in outcomes
        ]
    assert found["order"] == found["cluster"]
    assert found["order"][-1] is None
