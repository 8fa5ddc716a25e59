"""Suites: the runs that a file of prompts, methods and seeds stands for."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from config import ConfigError
from evaluation import suite as suites
from evaluation.runs import Outcome
from evaluation.suite import Suite
from tests.evaluation.fake_runs import finished, run_of
from toybox.lab import write_toys

ROOT = Path(__file__).parents[2]
OPT = str(ROOT / "config" / "quickstart.yaml")


def load(folder: Path, **content: object) -> Suite:
    path = folder / "some.yaml"
    given = {
        "base": OPT,
        "prompts": ["a red car", "a blue duck"],
        "methods": {"SDS": {"guidance_type": "sds"}},
    }
    path.write_text(yaml.safe_dump({**given, **content}, sort_keys=False), encoding="utf-8")
    return suites.load(path)


def test_a_suite_is_prompts_times_methods_times_seeds(tmp_path: Path) -> None:
    methods = {"SDS": {"guidance_type": "sds", "guidance_scale": 100}, "ISM": {"guidance_type": "ism"}}
    found = load(tmp_path, methods=methods, seeds=[3, 1], settings={"t_range": [0.02, 0.5], "BEG": True})
    assert [(run.seed, run.prompt, run.method) for run in found.runs] == [
        (seed, prompt, method)
        for seed in (3, 1)
        for prompt in ("a red car", "a blue duck")
        for method in methods
    ]
    for run in found.runs:
        config = run.config
        assert (config.seed, config.guidance.text) == (run.seed, run.prompt)
        assert config.guidance_type == run.method.lower()
        assert (config.guidance.guidance_scale == 100) == (run.method == "SDS")
        assert config.guidance.t_range == (0.02, 0.5)
        assert config.guidance.BEG
        assert not config.save_video
    assert len({run.key for run in found.runs}) == len(found.runs)
    assert found.lead == "ISM"


def test_prompts_come_from_a_file_of_lines(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red car\n\n  a blue duck \n", encoding="utf-8")
    assert load(tmp_path, prompts=str(tmp_path / "prompts.txt")).prompts == ("a red car", "a blue duck")


def test_a_setting_may_hold_the_prompt(tmp_path: Path) -> None:
    found = load(
        tmp_path, prompts=["a red car", "a duck"], settings={"controlnet_guide": "toys/{prompt}.ply"}
    )
    guides = {run.prompt: run.config.guidance.controlnet_guide for run in found.runs}
    assert guides == {"a red car": "toys/a red car.ply", "a duck": "toys/a duck.ply"}


def test_what_is_varied_makes_methods_of_which_the_impossible_have_a_reason(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        methods={"SCTD": {"guidance_type": "sctd"}},
        vary={"phase_num": [1, 10], "t_mode": ["uniform", "mono"], "t_threshold": [100, 300]},
        leave_out=[{"phase_num": 1, "t_mode": "mono", "reason": "the same"}],
    )
    assert len(found.methods) == 8
    assert found.varied == ("phase_num", "t_mode", "t_threshold")
    assert found.methods[0] == "SCTD 1 uniform 100"
    impossible, *same = sorted(found.absent.values())
    assert same == ["the same", "the same"]
    assert "t_threshold must lie in (0, 200)" in impossible
    made = {(r.config.phase_num, r.config.guidance.t_mode, r.config.guidance.t_threshold) for r in found.runs}
    assert made == {
        (1, "uniform", 100),
        (1, "uniform", 300),
        (10, "uniform", 100),
        (10, "uniform", 300),
        (10, "mono", 100),
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"promts": ["a"]}, ["'promts'", "nearest is prompts"]),
        ({"prompts": []}, ["prompts is empty"]),
        ({"prompts": "gone.txt"}, ["'gone.txt'", "no such file"]),
        ({"prompts": [1]}, ["list of texts"]),
        ({"seeds": [0, 0]}, ["seeds is [0, 0]", "each once"]),
        ({"seeds": 3}, ["seeds is 3"]),
        ({"methods": None}, ["methods is null"]),
        ({"methods": {"SDS": {"guidence_type": "sds"}}}, ["SDS", "guidence_type", "guidance_type"]),
        ({"settings": {"guidance_scale": "many"}}, ["'many'"]),
        ({"base": "config/bagle.yaml"}, ["bagle.yaml"]),
        ({"lead": "SDD"}, ["lead names 'SDD'", "nearest is SDS"]),
        ({"published": {"SDD": {"fid": 1}}}, ["published names 'SDD'", "nearest is SDS"]),
        ({"vary": {"phase_num": 3}}, ["vary.phase_num is 3"]),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, content: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, **content)
    said = str(caught.value)
    assert "some.yaml" in said
    assert all(word in said for word in words), said
    assert "\n" not in said


SHIPPED = sorted({*(ROOT / "config" / "eval").glob("*.yaml")} - {ROOT / "config/eval/stable_diffusion.yaml"})


@pytest.fixture(scope="module")
def folder_of_toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder to run suites in, where `toybox.lab.write_toys outputs/toys` was run; its files are empty."""
    folder = tmp_path_factory.mktemp("suites")
    (folder / "config").symlink_to(ROOT / "config")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["write_toys", str(folder / "outputs" / "toys")])
        patch.setattr(write_toys, "canonical", lambda name: name)
        patch.setattr(write_toys, "write_toy", _write_empty)
        write_toys.main()
    return folder


def _write_empty(toy: object, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_suite_can_be_run(
    path: Path, folder_of_toys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder_of_toys)
    found = suites.load(path)
    assert f"--suite config/eval/{path.name}" in path.read_text(encoding="utf-8")
    assert found.lead not in found.absent
    scales = {run.method: run.config.guidance.guidance_scale for run in found.runs}
    if path.stem == "table1":
        assert scales == {"SDS": 100, "ISM": 7.5, "CDS": 30, "GCS": 7.5, "SCTD": 7.5}
        assert len(found.prompts) == 40
        assert set(found.published) == set(found.methods)
    if path.stem == "figure6":
        assert found.prompts == ("a DSLR photo of the Imperial State Crown of England",)


def test_finished_runs_are_of_one_method_if_only_prompt_and_seed_differ(tmp_path: Path) -> None:
    runs = [
        run_of("a", 0, guidance_type="sds"),
        run_of("b", 1, guidance_type="sds", workspace="elsewhere", quiet="true"),
        run_of("a", 0, phase_num=3),
        run_of("a", 0, phase_num=4),
    ]
    outcomes = [Outcome.read(finished(run.config, tmp_path)) for run in runs]
    suite, found = suites.of_outcomes("some", outcomes)
    assert suite.methods == ("SDS 7.5, phase_num 5", "SCTD 7.5, phase_num 3", "SCTD 7.5, phase_num 4")
    assert (suite.prompts, suite.seeds) == (("a", "b"), (0, 1))
    assert list(found.values()) == outcomes
    assert [(run.prompt, run.seed) for run in found] == [("a", 0), ("b", 1), ("a", 0), ("a", 0)]
