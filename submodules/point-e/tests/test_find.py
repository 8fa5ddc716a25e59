"""Find two checkpoints and a CLIP from a model's name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_folders import TEXT, write_folder

from point_e import PointEError
from point_e.clip import VIT_L_14
from point_e.find import find_cascade
from point_e.models import BASE_MODELS, UPSAMPLER

TEXTVEC, BASE_300M = BASE_MODELS["base40M-textvec"], BASE_MODELS["base300M"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only cache folder, empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POINT_E_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "cache"


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_files_under_their_published_names_in_a_folder(tmp_path: Path) -> None:
    folder = touch(tmp_path / "mine", TEXTVEC.file, BASE_300M.file, "upsample_40m.safetensors")
    cascade = find_cascade(str(folder), offline=True)
    assert cascade.files == (folder / TEXTVEC.file, folder / "upsample_40m.safetensors")
    assert cascade.stages == (TEXTVEC.stage, UPSAMPLER.stage)
    assert (cascade.asked, cascade.clip) == ("text", VIT_L_14)


@pytest.mark.parametrize("name", BASE_MODELS)
def test_the_path_of_a_checkpoint_says_which_model_it_is(tmp_path: Path, name: str) -> None:
    folder = touch(tmp_path / "mine", *(base.file for base in BASE_MODELS.values()), UPSAMPLER.file)
    cascade = find_cascade(str(folder / BASE_MODELS[name].file), offline=True)
    assert cascade.stages[0] == BASE_MODELS[name].stage
    asked = {"base40M-textvec": "text", "base40M-uncond": "nothing"}.get(name, "image")
    assert cascade.asked == asked


def test_a_published_name_is_looked_for_in_the_cache(cache: Path) -> None:
    touch(cache, BASE_300M.file)
    with pytest.raises(PointEError, match=r"^upsample_40m\.pt is not in "):
        find_cascade("base300M", offline=True)
    touch(cache, "upsample_40m.safetensors")
    cascade = find_cascade("base300M", offline=True)
    assert cascade.files == (cache / BASE_300M.file, cache / "upsample_40m.safetensors")


def test_the_upsampler_may_be_in_the_cache(tmp_path: Path, cache: Path) -> None:
    touch(cache, "upsample_40m.safetensors")
    folder = touch(tmp_path / "mine", BASE_300M.file)
    assert find_cascade(str(folder), offline=True).files[1] == cache / "upsample_40m.safetensors"


def test_openai_is_the_model_for_text(cache: Path) -> None:
    with pytest.raises(PointEError, match=r"^base_40m_textvec\.pt is not in "):
        find_cascade("openai", offline=True)


def test_a_cut_off_checkpoint_in_the_cache_is_seen_by_its_size(cache: Path) -> None:
    touch(cache, TEXTVEC.file)
    with pytest.raises(PointEError, match="it has 0 bytes instead of 161385413"):
        find_cascade("openai", offline=True)


def test_a_checkpoint_that_is_not_what_its_sha256_file_says(tmp_path: Path) -> None:
    folder = touch(tmp_path / "mine", TEXTVEC.file, UPSAMPLER.file)
    (folder / f"{UPSAMPLER.file}.sha256").write_text(f"{'0' * 64}  {UPSAMPLER.file}\n")
    with pytest.raises(PointEError, match=rf"{UPSAMPLER.file}' is damaged or another file"):
        find_cascade(str(folder), offline=True)


@pytest.mark.parametrize(
    ("files", "model", "sentence"),
    [
        ([], "base40m-text", r"the nearest of which is 'base40M-textvec'"),
        ([], "mine", r"has neither a config\.json nor one of base_40m_textvec\.pt, "),
        (["base_40m.pt", "base_1b.pt"], "mine", r"has base_40m\.pt, base_1b\.pt; give the path of the one"),
        (["corgi.pt"], "mine/corgi.pt", r"must have the name of a published base model: base_40m"),
    ],
)
def test_what_no_model_is(tmp_path: Path, files: list[str], model: str, sentence: str) -> None:
    touch(tmp_path / "mine", *files)
    with pytest.raises(PointEError, match=sentence):
        find_cascade(model, offline=True)


def test_a_folder_of_our_own(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny", TEXT)
    cascade = find_cascade(str(folder), offline=True)
    assert cascade.files == (folder / "base.safetensors", folder / "upsample.safetensors")
    assert cascade.stages[0].model == TEXT
    assert (cascade.asked, cascade.clip) == ("text", str(folder / "clip"))


def without_base(config: dict[str, Any]) -> str:
    del config["base"]
    return json.dumps(config)


def with_unknown_key(config: dict[str, Any]) -> str:
    config["base"]["model"]["depth"] = 3
    return json.dumps(config)


def with_unknown_schedule(config: dict[str, Any]) -> str:
    config["base"]["schedule"] = "square"
    return json.dumps(config)


def with_a_width_in_words(config: dict[str, Any]) -> str:
    config["base"]["model"]["width"] = "wide"
    return json.dumps(config)


def with_unknown_clip(config: dict[str, Any]) -> str:
    config["base"]["model"]["clip"] = "sound"
    return json.dumps(config)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: "{",
        lambda config: "[1]",
        without_base,
        with_unknown_key,
        with_unknown_schedule,
        with_a_width_in_words,
        with_unknown_clip,
    ],
)
def test_a_damaged_config(tmp_path: Path, change: Callable[[dict[str, Any]], str]) -> None:
    config = write_folder(tmp_path / "tiny", TEXT) / "config.json"
    config.write_text(change(json.loads(config.read_text())))
    with pytest.raises(
        PointEError, match="does not describe a 'base' and perhaps an 'upsample' stage"
    ) as raised:
        find_cascade(str(config.parent), offline=True)
    assert "\n" not in str(raised.value)


def test_a_folder_of_our_own_may_do_without_an_upsampler(tmp_path: Path) -> None:
    config = write_folder(tmp_path / "tiny", TEXT) / "config.json"
    described = json.loads(config.read_text())
    del described["upsample"]
    config.write_text(json.dumps(described))
    (config.parent / "upsample.safetensors").unlink()
    cascade = find_cascade(str(config.parent), offline=True)
    assert [path.name for path in cascade.files] == ["base.safetensors"]
    assert len(cascade.stages) == 1
