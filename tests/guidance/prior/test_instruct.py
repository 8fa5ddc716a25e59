"""InstructPix2Pix: diffusers' own pipeline is the reference, and files that are none of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionInstructPix2PixPipeline
from PIL import Image
from torch import Tensor

from config import load
from guidance import Conditioning, Denoiser, ImagePrompt
from guidance.condition import ORIGINAL
from guidance.prior import InstructPix2Pix, PriorError, controls_of, load_prior
from tests.changed import changed
from tests.tiny_diffusers import write_tiny_instruct, write_tiny_ip_adapter
from utils.device import HOST


@pytest.fixture(scope="module")
def instruct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_instruct(tmp_path_factory.mktemp("instruct"))


@pytest.mark.parametrize("pictured", [False, True])
def test_guided_noise_is_that_of_diffusers_pipeline(
    pictured: bool, instruct: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an image prompt too."""
    config = load(["--text", "make it blue", "--fast", "false", "--model_key", str(instruct)])
    more: dict[str, Any] = {}
    if pictured:
        front = Image.new("RGB", (32, 32), "red")
        front.save(tmp_path / "front.png")
        adapter, more = str(write_tiny_ip_adapter(tmp_path, instruct)), {"ip_adapter_image": front}
        config = changed(config, image_prompt=str(tmp_path / "front.png"), image_prompt_model_key=adapter)
    prior = load_prior(config, HOST)
    assert isinstance(prior, InstructPix2Pix)
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(
        instruct,
        scheduler=DDIMScheduler.from_pretrained(instruct / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    if pictured:
        pipeline.load_ip_adapter(str(tmp_path), subfolder="", weight_name="adapter.safetensors")
        pipeline.set_ip_adapter_scale(0.6)
    seen: list[tuple[Tensor, Tensor, int]] = []
    step = pipeline.scheduler.step

    def noted(noise: Tensor, t: Tensor, z: Tensor, **settings: Any) -> Any:
        seen.append((noise, z, int(t)))
        return step(noise, t, z, **settings)

    monkeypatch.setattr(pipeline.scheduler, "step", noted)
    rng = torch.Generator().manual_seed(0)
    z, images = torch.randn(2, 4, 16, 16, generator=rng), torch.rand(2, 3, 32, 32, generator=rng)
    text, ugly = prior.embed(["make it blue"]).expand(2), prior.embed(["ugly"]).expand(2)
    pipeline(
        prompt_embeds=text.parts["text"],
        negative_prompt_embeds=ugly.parts["text"],
        image=images,
        latents=z,
        num_inference_steps=2,
        guidance_scale=7.5,
        image_guidance_scale=1.7,
        output_type="latent",
        **more,
    )
    told = Conditioning(text, ugly, prior.embed([""]).expand(2), has_negative=True)
    if prior.image_tokens is not None:
        told = ImagePrompt(*prior.image_tokens, 0.6).beside(told, torch.zeros(2))
    told = told.with_part(ORIGINAL, prior.encode_original(images))
    for noise, latents, t in seen:
        found = Denoiser(prior, 1.7).guided(latents, torch.full((2,), t), told, 7.5).prediction.eps
        torch.testing.assert_close(found, noise, rtol=1e-4, atol=1e-4)
        plain = Denoiser(prior).guided(latents, torch.full((2,), t), told, 7.5).prediction.eps
        assert float((plain - noise).abs().max()) > 0.01
    assert len(seen) == 2
    shapes = [tuple(part.shape) for part in prior._blank(3)]
    tokens = [(3, 4, 13)] if pictured else []
    assert shapes == [(3, 4, 16, 16), (3,), (3, 16, 12), *tokens, (3, 4, 16, 16)]


def test_what_does_not_fit_is_one_sentence(instruct: Path, tmp_path: Path) -> None:
    config = changed(
        load(["--text", "a", "--fast", "false", "--model_key", str(instruct)]), controlnet_model_key=("net",)
    )
    with pytest.raises(PriorError, match=r"is shown an original already: leave it out\.$"):
        controls_of(changed(config, controlnet_kinds=("depth",)))
    other = write_tiny_instruct(tmp_path / "other")
    index = json.loads((other / "model_index.json").read_text())
    for name, words in (
        ("StableDiffusionPipeline", "is InstructPix2Pix or another model .* takes 8 channels and gives 4"),
        ("StableDiffusionXLInstructPix2PixPipeline", "is a variant of Stable Diffusion XL"),
    ):
        (other / "model_index.json").write_text(json.dumps({**index, "_class_name": name}))
        with pytest.raises(PriorError, match=words):
            load_prior(changed(config, model_key=str(other), controlnet_model_key=None), HOST)
