"""The starts and the tables of `toybox.starts`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from scipy.stats import ttest_rel

from point_e import PointCloud
from scene.ply import read_points
from toybox import compare, starts
from toybox.assess import NUM_VIEWS, Assessment
from toybox.captions import HELD_OUT, TRAINING, parse
from toybox.runs import Archive, Bench, Outcome
from toybox.start_settings import START_NAMES, start_settings
from toybox.starts import Comparison, paired_difference
from toybox.world import toy
from utils.run_folder import RunFolder

OPT = str(Path("config/quickstart.yaml").resolve())
PROMPTS = ("a red mushroom", "a blue car")
RATES = ("position_lr_init", "position_lr_final")


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    return Comparison(Bench(OPT, Archive(tmp_path / "results")), ("pointe", "sphere"), PROMPTS, range(2))


def outcome(folder: Path, prompt: str, recognised: float) -> Outcome:
    folder.mkdir()
    features = np.random.default_rng(0).random((NUM_VIEWS, 128), dtype=np.float32)
    found = Assessment(prompt, recognised, 0.25, 15.0, 4.0, features)
    return Outcome(found, 60.0, 2.0, RunFolder(folder))


def test_starts_and_their_learning_rates(
    comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = comparison.bench.config(PROMPTS[0], 0, {}).optimization
    made = {start: comparison.config(start, "a blue car", 1) for start in START_NAMES}
    rates = {start: [getattr(made[start].optimization, key) for key in RATES] for start in START_NAMES}
    assert made["pointe"].camera.init_shape == "pointe"
    assert rates["pointe"] == [getattr(own, key) for key in RATES]
    assert made["sphere"].camera.init_shape == "sphere"
    assert rates["sphere"] == [0.002, 0.0003]
    assert rates["rough"] == pytest.approx([0.0004, 0.00006])
    cloud = read_points(made["rough"].camera.init_shape)
    surface = torch.from_numpy(toy("car", "blue").points).float()
    assert torch.cdist(cloud.points[:200], surface).amin(dim=1).mean() < 0.05
    assert made["rough"].camera.init_shape != comparison.config("rough", "a blue car", 0).camera.init_shape


def test_an_unknown_toy_has_no_rough_start() -> None:
    with pytest.raises(ValueError, match="'a red cat' does not name one toy"):
        start_settings("rough", "a red cat", 0)


def test_guidances_are_compared_from_the_sphere_whatever_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = yaml.safe_load(Path(OPT).read_text(encoding="utf-8"))
    settings["GenerateCamParams"]["init_shape"] = "box"
    settings["OptimizationParams"]["position_lr_init"] = 0.5
    opt = tmp_path / "box.yaml"
    opt.write_text(yaml.safe_dump(settings), encoding="utf-8")
    benches = []
    monkeypatch.setattr(compare, "report", lambda bench, arguments: benches.append(bench))
    monkeypatch.setattr("sys.argv", ["compare", "--opt", str(opt)])
    compare.main()
    config = benches[0].config(PROMPTS[0], 0, compare.GUIDANCES[0].settings)
    assert config.camera.init_shape == "sphere"
    assert config.optimization.position_lr_init == 0.002


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 20))
    mean, half = paired_difference(a, b)
    low, high = ttest_rel(a, b).confidence_interval(0.95)
    assert (mean - half, mean + half) == pytest.approx((low, high))


def test_the_lead_is_that_of_runs_with_a_counterpart(
    comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rendering the true toys takes seconds.
    monkeypatch.setattr(compare, "true_features", lambda prompt, config: np.eye(NUM_VIEWS, 128))
    shares = {("pointe", 0): 1.0, ("sphere", 0): 0.7, ("pointe", 1): 0.9, ("sphere", 1): 0.8}
    for (start, seed), share in shares.items():
        config = comparison.config(start, PROMPTS[0], seed)
        comparison.bench.archive.add("run", config, outcome(tmp_path / f"{start}{seed}", PROMPTS[0], share))
    # Without a counterpart.
    lone = outcome(tmp_path / "lone", PROMPTS[1], 0.0)
    comparison.bench.archive.add("run", comparison.config("pointe", PROMPTS[1], 0), lone)

    means, leads, by_prompt = starts.table(comparison).split("\n\n")
    assert [text.split("|")[2:4] for text in means.splitlines()[2:]] == [[" 3 ", " 63% "], [" 2 ", " 75% "]]
    # 12.7 times 0.1: t of one degree of freedom at 97.5%.
    assert leads.splitlines()[2].split("|")[2:4] == [" 2 ", " +20% [-107%, +147%] "]
    assert by_prompt.splitlines()[2:] == [
        "| a red mushroom | 100%, 15.0 dB; 90%, 15.0 dB | 70%, 15.0 dB; 80%, 15.0 dB |",
        "| a blue car * | 0%, 15.0 dB |  |",
    ]


def test_tables_are_whole_without_runs(
    comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for table in starts.table(replace(comparison, starts=START_NAMES)).split("\n\n"):
        assert len({text.count("|") for text in table.splitlines()}) == 1


def exact_point_e(turned: bool) -> SimpleNamespace:
    """A Point-E that knows the toys' surfaces, as they stand or turned by 90°."""

    def from_text(prompt: str, *, seed: int, progress: bool) -> PointCloud:
        truth = toy(*parse(prompt))
        chosen = np.random.default_rng(seed).integers(len(truth.points), size=1024)
        x, y, z = truth.points[chosen].T
        points = np.stack([y, -x, z], axis=1) if turned else truth.points[chosen]
        return PointCloud(torch.from_numpy(points).float(), torch.from_numpy(truth.colors[chosen]).float())

    return SimpleNamespace(from_text=from_text)


@pytest.mark.parametrize("turned", [False, True])
def test_clouds_are_judged_as_toys_stand(turned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "_pipeline", lambda: exact_point_e(turned))
    sided = [(kind, color) for kind, color in (*TRAINING[-4:], *HELD_OUT[-2:])]
    monkeypatch.setattr(starts, "PAIRS", sided)
    lines = [text.split("|")[1:6] for text in starts.clouds_table((0, 1)).splitlines()[2:]]
    share = " 0% " if turned else " 100% "
    assert lines == [
        [f" {name} ", f" {count} ", share, share, share]
        for name, count in (("trained", 8), ("held out", 4), ("all", 12))
    ]


def test_a_sheet_has_a_row_for_every_prompt(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "_pipeline", lambda: exact_point_e(False))
    picture = starts.sheet(comparison)
    assert picture.shape[2] == 12 * (128 + 2) - 2
    rows = picture.tensor_split(2, dim=1)
    for row in rows:
        assert float(row[:, -100:, : 4 * 130].min()) < 0.7
        assert float(row[:, -100:, 4 * 130 :].min()) == 1
