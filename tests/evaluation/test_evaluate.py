"""The command for evaluations, from a file to a table."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from PIL import Image

from evaluate import main
from evaluation import suite as suites
from tests.evaluation.fake_runs import finished

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    """Restore the configuration's warnings, which the command quietens and other tests listen to."""
    logger = logging.getLogger("config")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite of two tiny methods on toybox, and one whose start is broken."""
    monkeypatch.chdir(tmp_path)
    Path("broken.ply").write_text("no points")
    content = {
        "base": str(ROOT / "config" / "quickstart.yaml"),
        "prompts": ["a red mushroom"],
        "settings": {"iterations": 2, "init_num_pts": 200, "init_shape": "sphere", "C_batch_size": 1},
        "methods": {
            "broken": {"init_shape": "broken.ply"},
            "SDS": {"guidance_type": "sds"},
            "SCTD": {"guidance_type": "sctd"},
        },
        "published": {"source": "a paper", "SDS": {"recognised": 0.5}},
    }
    Path("tiny.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return Path("tiny.yaml")


def test_a_dry_run_says_what_is_finished(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(suites.load(suite).runs[1].config, Path("outputs"))
    assert main(["--suite", str(suite), "--dry_run"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "to make   broken, a red mushroom, seed 0",
        "finished  SDS, a red mushroom, seed 0",
        "to make   SCTD, a red mushroom, seed 0",
        "1 of 3 runs are finished.",
    ]


@pytest.mark.parametrize("words", [["--suite", "gone.yaml"], ["nowhere"], ["outputs"]])
def test_what_cannot_be_evaluated_is_one_sentence(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("outputs").mkdir()
    assert main(words) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert words[-1] in said


@pytest.mark.thorough
def test_a_suite_becomes_a_table_once(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--suite", str(suite), "--fid_images", "96"]
    assert main(command) == 1
    out = Path("outputs/evaluation/tiny")
    told = json.loads((out / "results.json").read_text())
    assert [run["method"] for run in told["runs"]] == ["SDS", "SCTD"]
    # Classifier-free guidance takes two.
    assert told["runs"][0]["evaluations"] == 2
    assert told["runs"][0]["gaussians"] == 200
    assert 0 < told["runs"][0]["peak_memory"] < 8
    assert {"recognised", "janus", "psnr", "chamfer"} <= set(told["runs"][0])
    assert "broken.ply" in told["failures"]["broken, a red mushroom, seed 0"]
    log = Path(told["failures"]["broken, a red mushroom, seed 0"].split("(log: ")[1].split(")")[0])
    assert "broken.ply" in log.read_text()
    table = (out / "table.md").read_text()
    assert "| SDS, published |" in table
    assert table.strip() in capsys.readouterr().out
    # Three methods from two sides.
    assert Image.open(out / "sheet.jpg").size[0] == 3 * 2 * 130 - 2

    folders = sorted(folder for folder in Path("outputs/runs").iterdir() if folder.name != "logs")
    assert main(["outputs/runs", "--fid_images", "96", "--out", "again"]) == 0
    again = json.loads(Path("again/results.json").read_text())
    assert [run["psnr"] for run in again["runs"]] == pytest.approx(
        [told["runs"][1]["psnr"], told["runs"][0]["psnr"]], abs=0
    )
    main(command)
    kept = [folder for folder in Path("outputs/runs").iterdir() if (folder / "result.json").exists()]
    assert sorted(kept) == folders
