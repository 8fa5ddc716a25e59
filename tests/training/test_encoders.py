"""Runs whose first iterations the small encoder takes."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import config as configuration
import guidance.prior
from config import Config
from guidance.prior import StableDiffusionPrior
from tests.changed import changed
from tests.tiny_diffusers import write_tiny_small_encoder
from train import train
from training import memory_plan
from training.memory_plan import MemoryPlan
from utils.device import HOST


class Killed(BaseException):
    """Stand-in for the end of a process."""


@pytest.fixture
def small_config(tiny_config: Config, tmp_path: Path) -> Config:
    """Ten iterations, of which the small encoder takes six."""
    small = write_tiny_small_encoder(tmp_path / "small")
    keys = {"encoder": "small", "small_encoder_share": 0.6, "small_encoder_key": str(small)}
    keys |= {"save_video": False, "image_w": 32, "image_h": 32, "C_batch_size": 2}
    return changed(tiny_config, **keys)


@pytest.fixture
def encoded_by(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The networks that encode, call by call."""
    seen: list[str] = []
    for name in ("_plain_posterior_mean", "_plain_small_latents"):
        plain = getattr(StableDiffusionPrior, name)

        def encode(
            self: StableDiffusionPrior, images: object, name: str = name, plain: object = plain
        ) -> object:
            seen.append("vae" if "posterior" in name else "small")
            return plain(self, images)  # type: ignore[operator]

        monkeypatch.setattr(StableDiffusionPrior, name, encode)
    return seen


def test_the_autoencoder_takes_over_and_a_resumed_run_ends_in_the_same_bytes(
    small_config: Config,
    tmp_path: Path,
    encoded_by: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A run is killed before the change and after it; the iteration of its checkpoint alone decides who encodes."""
    caplog.set_level(logging.INFO)
    whole = train(small_config, tmp_path / "whole")
    assert encoded_by == ["small"] * 6 + ["vae"] * 4
    assert (
        "The small encoder takes the first 6 of 10 iterations, the autoencoder the rest." in caplog.messages
    )
    assert any(
        line.startswith("Iteration 7: the autoencoder encodes from here on") for line in caplog.messages
    )

    def kill(step: int) -> None:
        if step in kills:
            raise Killed

    encoded_by.clear()
    kills = {4}
    with pytest.raises(Killed):
        train(changed(small_config, checkpoint_iterations=(4, 8)), tmp_path / "cut", kill)
    (file,) = (tmp_path / "cut").rglob("config.yaml")
    way_on = configuration.load(["--resume", str(file.parent), "--quiet"])
    kills = {8}
    with pytest.raises(Killed):
        train(way_on, on_step=kill)
    resumed = train(way_on)
    assert encoded_by == ["small"] * 6 + ["vae"] * 4
    assert resumed.run.asset.read_bytes() == whole.run.asset.read_bytes()


def test_the_memory_is_planned_for_the_larger_of_the_two(small_config: Config) -> None:
    small_config = changed(small_config, guidance_type="sds")
    throughout = changed(small_config, small_encoder_share=1.0)
    full = changed(small_config, encoder="full")
    takes = {}
    for name, config in (("both", small_config), ("small", throughout), ("full", full)):
        prior = guidance.prior.load_prior(config, HOST)
        takes[name] = memory_plan.guidance_bytes(config, prior, MemoryPlan(2, False))
        assert prior.encodes_with == "vae"
    assert takes["small"] < takes["both"] == takes["full"]


def test_both_encoders_are_compiled_where_both_are_used(
    small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[list[str]] = []
    monkeypatch.setattr(
        StableDiffusionPrior,
        "compile",
        lambda self, how, views, shares, needed, encoders: compiled.append(encoders),
    )
    for share in (0.0, 0.6, 1.0):
        config = changed(small_config, compile="dynamic", small_encoder_share=share)
        prior = guidance.prior.load_prior(config, HOST)
        assert (prior.small_encoder is None) == (share == 0)
        guidance.prior.compile_networks(config, prior, 2, lambda: {2: 1.0}, lambda: 0)
    assert compiled == [["vae"], ["small_encoder", "vae"], ["small_encoder"]]
