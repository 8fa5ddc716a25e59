"""The presets in config/: what the project ships."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from config import Config, dump, load

PRESETS = sorted((Path(__file__).parents[2] / "config").glob("*.yaml"))


def test_all_presets_are_found() -> None:
    assert len(PRESETS) == 21
    assert {"bagel", "quickstart", "edit"} <= {file.stem for file in PRESETS}


@pytest.mark.parametrize("file", PRESETS, ids=lambda file: file.stem)
def test_presets_load_silently_and_hold_differences_only(
    file: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    start = tmp_path / "start.ply"
    start.touch()
    (tmp_path / "body.json").touch()
    needed = {
        "edit": ["--pretrained_model_path", str(start)],
        "refine": ["--init_shape", str(start)],
        "avatar": ["--init_shape", str(start), "--skeleton", str(tmp_path / "body.json")],
    }
    load(["--opt", str(file), *needed.get(file.stem, [])])
    assert caplog.messages == []
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    base = load(["--opt", str(file.parent / content["base"])]) if "base" in content else Config()
    defaults = yaml.safe_load(dump(base))
    same = [
        f"{section}.{key}"
        for section, keys in content.items()
        for key, value in (keys.items() if isinstance(keys, dict) else [])
        if defaults[section][key] == value
    ]
    assert same == []
