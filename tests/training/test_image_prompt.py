"""Runs with an image prompt: every method, resumed to the same bytes, and mistakes before any work."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from PIL import Image

from config import Config, ConfigError, load
from guidance.prior import PriorError, load_prior
from tests.changed import changed
from tests.guidance.prior.tiny_mvdream import write_base, write_mvdream
from tests.tiny_diffusers import write_tiny_ip_adapter
from tests.training.test_steering import same
from train import train
from training.memory_plan import MemoryPlan, guidance_bytes
from training.state import assemble
from utils.device import HOST


@pytest.fixture
def pictured(tiny_config: Config, tiny_prior: Path, tmp_path: Path) -> Config:
    """Three iterations from a sphere, with a red picture."""
    Image.new("RGB", (32, 32), "red").save(tmp_path / "front.png")
    keys = {"image_w": 32, "image_h": 32, "C_batch_size": 2, "save_video": False, "save_process": False}
    return changed(
        tiny_config,
        image_prompt=str(tmp_path / "front.png"),
        image_prompt_model_key=str(write_tiny_ip_adapter(tmp_path / "adapter", tiny_prior)),
        iterations=3,
        densify_until_iter=0,
        perpneg=True,
        **keys,
    )


@pytest.mark.parametrize(
    "method",
    ["sctd", *(pytest.param(each, marks=pytest.mark.thorough) for each in ("sds", "ism", "cds", "gcs"))],
)
def test_a_run_resumes_to_the_same_bytes_and_scale_0_is_none(
    method: str, pictured: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    config = changed(pictured, guidance_type=method, checkpoint_iterations=(2,), negative="ugly")
    whole = train(config)
    assert "front.png, at scale 0.6 from the front and 0.12 from behind, by " in caplog.text
    again = load(["--start_checkpoint", str(whole.run.checkpoints / "iteration_2.json"), "--quiet"])
    assert same(train(again), whole)
    plain = train(changed(config, image_prompt=None))
    assert same(train(changed(config, image_prompt_scale=0.0)), plain)
    assert not same(whole, plain)
    Image.new("RGB", (32, 32), "blue").save(tmp_path / "front.png")
    with pytest.raises(ValueError, match="made with other weights"):
        train(again)


def test_the_memory_plan_counts_it_and_mistakes_are_sentences_before_any_work(
    pictured: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = MemoryPlan(2, encode_singly=False)
    with_image, without = (
        guidance_bytes(config, load_prior(config, HOST), plan)
        for config in (pictured, changed(pictured, image_prompt=None))
    )
    # The tokens of both views and of all conditions of one call.
    assert with_image - without > 3 * 2 * 4 * 13 * 4

    def no_start(*args: object) -> None:
        raise AssertionError("a start takes minutes")

    monkeypatch.setattr("training.state.initialize", no_start)
    with pytest.raises(PriorError, match=r"image_prompt_model_key 'nowhere' is no folder here"):
        assemble(changed(pictured, image_prompt_model_key="nowhere"))
    sets = str(write_mvdream(write_base(tmp_path / "base"), tmp_path / "sets"))
    with pytest.raises(PriorError, match=r"image_prompt is for Stable Diffusion 1, 2 and XL, and model_key"):
        assemble(changed(pictured, model_key=sets, C_batch_size=4))
    with pytest.raises(ConfigError, match=r"image_prompt is 'gone.png', but there is no such file"):
        load(["--text", "mug", "--image_prompt", "gone.png"])
