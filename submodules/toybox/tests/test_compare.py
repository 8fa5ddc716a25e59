"""The tables of `toybox.compare`, and the runs behind them: made once, found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from config import Config, load
from evaluation.frechet import Moments, frechet_distance
from scene.gaussian_model import GaussianModel
from toybox import compare, segments
from toybox.assess import NUM_VIEWS, Assessment
from toybox.compare import GUIDANCES, line
from toybox.runs import LEAN, Archive, Bench, Outcome, run_missing
from utils.run_folder import RunFolder

OPT = str(Path("config/quickstart.yaml").resolve())
PROMPT = "a red mushroom"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(OPT, Archive(tmp_path / "results"))


def outcome(folder: Path, recognised: float = 0.5, seconds: float = 60.0, psnr: float = 15.0) -> Outcome:
    folder.mkdir(exist_ok=True)
    features = np.random.default_rng(0).random((NUM_VIEWS, 128), dtype=np.float32)
    found = Assessment(PROMPT, recognised, janus=0.25, psnr=psnr, chamfer=4.0, features=features)
    return Outcome(found, seconds, evaluations=2.0, folder=RunFolder(folder))


def test_an_outcome_is_found_by_its_configuration_alone(bench: Bench, tmp_path: Path) -> None:
    settings = {"guidance_type": "sds", "guidance_scale": "7.5"}
    kept = outcome(tmp_path / "run")
    bench.archive.add("some name", bench.config(PROMPT, 0, settings), kept)
    found = bench.outcome(PROMPT, 0, settings)
    assert found == kept
    assert np.array_equal(found.assessment.features, kept.assessment.features)
    # The quickstart's own value, named or not, makes the same run.
    assert bench.outcome(PROMPT, 0, {**settings, "phase_num": "5"}) == kept
    assert bench.outcome(PROMPT, 1, settings) is None
    assert bench.outcome(PROMPT, 0, {**settings, "guidance_scale": "100"}) is None


def test_an_outcome_whose_files_are_gone_is_not_found(bench: Bench, tmp_path: Path) -> None:
    config, folder = bench.config(PROMPT, 0, {}), tmp_path / "run"
    bench.archive.add("some name", config, outcome(folder))
    for file in folder.iterdir():
        file.unlink()
    assert bench.archive.find(config) is None


def test_a_line_has_means_and_the_median_of_seconds(bench: Bench, tmp_path: Path) -> None:
    runs = [
        outcome(tmp_path / "run", recognised=recognised, seconds=seconds, psnr=psnr)
        for recognised, seconds, psnr in ((0.2, 50, 10.0), (0.4, 60, 12.0), (0.9, 190, 17.0))
    ]
    cells = [cell.strip() for cell in line(GUIDANCES[1], runs, bench.config(PROMPT, 0, {})).split("|")[1:-1]]
    assert cells[:4] == ["SDS", "100", "3", "50%"]
    assert cells[5:] == ["4.0", "25.0%", "13.0 dB", "60", "2.0"]


def test_renders_of_the_true_toys_have_no_distance_to_themselves(bench: Bench, tmp_path: Path) -> None:
    config = bench.config(PROMPT, 0, {})
    exact = compare.true_features(PROMPT, config)
    run = outcome(tmp_path / "run")
    other = float(line(GUIDANCES[0], [run], config).split("|")[5])
    distance = frechet_distance(Moments.of(run.assessment.features), Moments.of(exact))
    assert other == pytest.approx(distance, abs=0.5)
    run = replace(run, assessment=replace(run.assessment, features=exact))
    assert abs(float(line(GUIDANCES[0], [run], config).split("|")[5])) == 0


def test_tables_are_whole_when_runs_are_missing(bench: Bench, tmp_path: Path) -> None:
    row = GUIDANCES[0]
    bench.archive.add("one", bench.config(PROMPT, 1, row.settings), outcome(tmp_path / "run"))
    prompts = (PROMPT, "a blue car")
    means, by_prompt = compare.table(bench, GUIDANCES, prompts, (0, 1)).split("\n\n")
    for table in (means, by_prompt):
        lines = table.splitlines()
        assert len(lines) == 2 + len(GUIDANCES)
        assert len({text.count("|") for text in lines}) == 1
    assert [text.split("|")[3].strip() for text in means.splitlines()[2:]] == ["1"] + ["0"] * (
        len(GUIDANCES) - 1
    )
    assert by_prompt.splitlines()[2].split("|")[3:5] == [" 50%, 15.0 dB ", "  "]


def test_every_segmentation_is_run_once_or_impossible(bench: Bench) -> None:
    configs = segments.configs(bench, PROMPT, 0)
    made = {(c.phase_num, c.guidance.t_mode, c.guidance.t_threshold) for c in configs.values()}
    assert len(made) == len(configs)
    lines = segments.table(bench, PROMPT, 0).splitlines()[2:]
    said = [text.strip() for line in lines for text in line.split("|")[2:-1]]
    for cell, says in zip(segments.cells(), said, strict=True):
        count, mode, threshold = cell
        if count == 1 and mode == "mono":
            assert says == "as uniform"
        elif mode == "mono" and 2 * 1000 / count <= threshold:
            # The last interval, 2 T / N_s - t_τ, would not be positive.
            assert says == "impossible"
        else:
            assert says == "not run"
            assert cell in made


def test_sheets_have_a_place_for_every_run(bench: Bench, tmp_path: Path) -> None:
    row, folder = GUIDANCES[0], tmp_path / "run"
    bench.archive.add("one", bench.config(PROMPT, 0, row.settings), outcome(folder))
    GaussianModel.from_points(torch.zeros(1, 3), torch.zeros(1, 3), 0, 0.99).save_ply(RunFolder(folder).asset)
    prompts = (PROMPT, "a blue car")
    picture = compare.sheet(bench, GUIDANCES[:2], prompts, 0)
    assert picture.shape[2] == 2 * 2 * (128 + 2) - 2
    true, made, missing = picture.tensor_split(3, dim=1)
    darkest = [float(rows[:, -100:, :256].min()) for rows in (true, made, missing)]
    assert darkest[0] < 0.7
    assert darkest[1] < 0.7
    assert darkest[2] == 1
    assert segments.sheet(bench, PROMPT, 0).shape[2] == 6 * 2 * (128 + 2) - 2


def tiny(*flags: str) -> Config:
    few = ("--iterations", "2", "--init_num_pts", "200", "--text", PROMPT, "--workspace", "compare")
    return load(["--opt", OPT, *LEAN, *few, *flags])


def test_runs_are_made_once_and_one_that_fails_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    archive, sds = Archive(Path("results")), tiny("--guidance_type", "sds", "--init_shape", "sphere")
    Path("broken.ply").write_text("no points")
    configs = {
        "of broken points": tiny("--init_shape", "broken.ply"),
        "SDS": sds,
        "SDS again": sds,
    }
    run_missing(configs, archive, jobs=1)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert "of broken points: failed" in said[0]
    assert "broken.ply" in said[0]
    assert "SDS: " in said[1]
    found = archive.find(sds)
    assert found is not None
    # Classifier-free guidance takes two.
    assert found.evaluations == 2
    assert len(found.gaussians) == 200
    assert found.assessment.features.shape == (NUM_VIEWS, 128)

    folders = set(Path("outputs/compare").iterdir())
    run_missing({"SDS": sds}, archive, jobs=1)
    assert capsys.readouterr().out == ""
    assert set(Path("outputs/compare").iterdir()) == folders
