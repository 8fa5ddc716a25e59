"""Scorers by name: those that are available, and one sentence for each that is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from torch import nn

from config import Config
from evaluation.scorers import SCORERS, ScorerOptions, load
from evaluation.scorers.contract import ScorerError
from evaluation.scorers.weights import find_file, fingerprint

HOST = torch.device("cpu")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take away the network and the caches."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def test_what_cannot_be_had_is_skipped_with_one_sentence(offline: None, tmp_path: Path) -> None:
    options = replace(ScorerOptions(), images=tmp_path)
    loaded, skipped = load(
        ["toybox", "clip", "fid", "toybox", "image_reward"], options, ["a red car"], Config(), HOST
    )
    assert [scorer.name for scorer in loaded] == ["toybox"]
    assert set(skipped) == {"clip", "fid", "image_reward"}
    assert skipped["clip"].startswith(f"clip is '{options.clip}', which cannot be loaded")
    assert skipped["fid"].startswith(f"inception is '{options.inception}', which cannot be loaded")
    assert "HF_HUB_OFFLINE" in skipped["fid"]
    assert skipped["image_reward"].startswith(
        f"image_reward is '{options.image_reward}', which cannot be loaded"
    )
    for sentence in skipped.values():
        assert sentence.endswith("; give a local path.")
        assert "\n" not in sentence


def test_a_name_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="'lpips', but it must be among clip, fid, image_reward, toybox"):
        load(["clip", "lpips"], ScorerOptions(), ["a"], Config(), HOST)


def test_columns_are_known_without_loading() -> None:
    for name, scorer in SCORERS.items():
        assert scorer.name == name
        assert {len(scorer.columns), len(scorer.set_columns)} != {0}
        for column in (*scorer.columns, *scorer.set_columns):
            assert format(0.5, column.form)
            assert column.better in (-1, 0, 1)


def test_a_file_is_found_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").touch()
    assert find_file("clip", str(tmp_path / "weights.pt"), "weights.pt") == tmp_path / "weights.pt"
    assert find_file("clip", str(tmp_path), "weights.pt") == tmp_path / "weights.pt"
    with pytest.raises(ScorerError, match=r"^clip is the folder '.*', but it has no file other\.pt\.$"):
        find_file("clip", str(tmp_path), "other.pt")


def test_an_address_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def download(address: str, path: str) -> None:
        asked.append(address)
        Path(path).write_bytes(b"weights")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        found = find_file("inception", "https://example.org/a/weights.pth", "weights.pth")
        assert found.read_bytes() == b"weights"
    assert asked == ["https://example.org/a/weights.pth"]


@pytest.mark.parametrize("change", ["number", "name"])
def test_fingerprints_tell_networks_apart(change: str) -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))

    other = network()
    assert fingerprint(other) == fingerprint(network())
    if change == "number":
        nn.init.constant_(other[1].bias, 0.25)  # type: ignore[index]
    else:
        other.add_module("2", nn.Identity())
        other.register_buffer("more", torch.zeros(()))
    assert fingerprint(other) != fingerprint(network())
