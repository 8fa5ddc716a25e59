"""Image prompts: diffusers' own pipelines with the same IP-Adapter are the reference."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import ControlNetModel, DDIMScheduler
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from config import Config, load
from guidance import Condition, Conditioning, Denoiser, ImagePrompt, PerpNeg, PromptEmbeddings
from guidance.prior import LatentPrior, PriorError, StableDiffusionPrior, load_prior
from guidance.prior.image_prompt_files import find_image_prompt
from tests.guidance.prior.tiny_families import SIDE, write_family
from tests.tiny_diffusers import write_tiny_controlnet, write_tiny_ip_adapter
from utils.device import HOST

SCALE = 0.6
XL = "StableDiffusionXLPipeline"


def write_picture(path: Path, size: tuple[int, int] = (48, 48)) -> str:
    pixels = torch.randint(256, (size[1], size[0], 4), generator=torch.Generator().manual_seed(1))
    Image.fromarray(pixels.byte().numpy(), "RGBA").save(path)
    return str(path)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_picture(tmp_path_factory.mktemp("picture") / "front.png")


def config_of(model: Path, picture: str, adapter: Path, *flags: str) -> Config:
    flags += ("--embeddings", str(model / "embeddings")) if (model / "text_encoder_2").is_dir() else ()
    keys = {"model_key": model, "image_prompt": picture, "image_prompt_model_key": adapter, "text": "a mug"}
    given = [str(each) for name, value in keys.items() for each in (f"--{name}", value)]
    return load([*given, "--fast", "false", *flags])


def prompted(prior: LatentPrior, azimuth: Tensor, **settings: Any) -> Conditioning:
    assert prior.image_tokens is not None
    image = ImagePrompt(*prior.image_tokens, **settings)
    prompts = PromptEmbeddings(prior, "a mug", image=image)
    found = prompts.at(azimuth, torch.full_like(azimuth, 90.0))
    # A pipeline's own prompt has no words for a view.
    text = prior.embed(["a mug"]).expand(len(azimuth))
    return Conditioning(
        text.with_part("image", found.positive.parts["image"]),
        found.negative,
        found.unconditional,
        negative_is_unconditional=True,
    )


@pytest.mark.parametrize("family", ["StableDiffusionControlNetPipeline", XL])
def test_guided_noise_is_that_of_diffusers_pipeline_scaled_by_view(
    family: str, folder: Path, picture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stable Diffusion 1 and 2 have a ControlNet besides, and the other kind of adapter than XL."""
    xl = family == XL
    model = write_family(XL, tmp_path / "model") if xl else folder
    adapter = write_tiny_ip_adapter(tmp_path / "adapter", model, plus=xl)
    flags, more = ["--prior_image_size", str(SIDE)] if xl else [], {}
    pictures = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    if not xl:
        net = write_tiny_controlnet(tmp_path / "net", folder)
        flags = [
            "--controlnet_model_key",
            str(net),
            "--controlnet_kinds",
            "depth",
            "--controlnet_guide",
            picture,
        ]
        more = {"controlnet": ControlNetModel.from_pretrained(net)}
        monkeypatch.setattr("config.consistency._check_controlnets", lambda config: None)
        more |= {"safety_checker": None, "requires_safety_checker": False}
        # Otherwise the pipeline asks for a file that a folder need not have.
        more |= {"feature_extractor": None, "image_encoder": None}
    prior = load_prior(config_of(model, picture, adapter, *flags), HOST)
    pipeline = getattr(diffusers, family).from_pretrained(
        model, scheduler=DDIMScheduler.from_pretrained(model / "scheduler"), **more
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_ip_adapter(str(adapter), subfolder="", weight_name="adapter.safetensors")
    white = Image.new("RGBA", (48, 48), "white")
    shown = Image.alpha_composite(white, Image.open(picture)).convert("RGB")
    seen: list[tuple[Tensor, Tensor, int]] = []
    step = pipeline.scheduler.step

    def noted(noise: Tensor, t: Tensor, z: Tensor, **settings: Any) -> Any:
        seen.append((noise, z, int(t)))
        return step(noise, t, z, **settings)

    monkeypatch.setattr(pipeline.scheduler, "step", noted)
    told = prompted(prior, torch.zeros(2))
    embeds = {
        "prompt_embeds": told.positive.parts["text"],
        "negative_prompt_embeds": told.negative.parts["text"],
    }
    if xl:
        embeds |= {
            "pooled_prompt_embeds": told.positive.parts["pooled"],
            "negative_pooled_prompt_embeds": told.negative.parts["pooled"],
        }
    else:
        embeds |= {"image": pictures[:, 0]}
    z = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    azimuths = {SCALE: 0.0, 0.7 * SCALE: 90.0, 0.4 * SCALE: 180.0}
    for scale, azimuth in azimuths.items():
        seen.clear()
        pipeline.set_ip_adapter_scale(scale)
        pipeline(
            **embeds,
            ip_adapter_image=shown,
            latents=z,
            height=SIDE,
            width=SIDE,
            num_inference_steps=2,
            guidance_scale=7.5,
            output_type="latent",
        )
        told = prompted(prior, torch.full((2,), azimuth), scale=SCALE, behind=0.4)
        for noise, latents, t in seen:
            given = told if xl else told.shown(pictures)
            found = Denoiser(prior).guided(latents, torch.full((2,), t), given, 7.5).prediction.eps
            torch.testing.assert_close(found, noise, rtol=1e-4, atol=1e-4)
        assert len(seen) == 2
    # Both views in one batch are what they are alone, and where nothing is left it is the plain prior, to the last bit.
    sides = prompted(prior, torch.tensor([0.0, 180.0]), scale=SCALE, behind=0.0)
    t = torch.tensor([500, 500])
    both = prior.predict(z, t, sides.positive).eps
    without = config_of(model, picture, adapter, *flags, "--image_prompt_scale", "0")
    plain = load_prior(without, HOST)
    assert plain.image_tokens is None
    assert plain.fingerprint != prior.fingerprint
    nothing = plain.predict(z, t, plain.embed(["a mug"]).expand(2)).eps
    assert torch.equal(both[1], nothing[1])
    assert float((both[0] - nothing[0]).abs().max()) > 0.01


def test_negatives_of_perp_neg_have_the_picture_of_their_views() -> None:
    """They differ from the prompt in their words alone."""

    class Words:
        def embed(self, prompts: Sequence[str]) -> Condition:
            return Condition({"text": torch.arange(float(len(prompts)))[:, None, None]})

    image = ImagePrompt(torch.ones(1, 2, 3), torch.zeros(1, 2, 3), 0.5, 0.2)
    azimuth = torch.tensor([0.0, 60.0, 180.0, -60.0])
    found = PromptEmbeddings(Words(), "a mug", perp_neg=PerpNeg(), image=image).at(
        azimuth, torch.full((4,), 90.0)
    )
    rows = found.positive.parts["image"]
    torch.testing.assert_close(rows[:, 0, -1], torch.tensor([0.5, 0.4, 0.1, 0.4]))
    assert torch.equal(rows[..., :-1], torch.ones(4, 2, 3))
    for each in (found.negative, found.unconditional):
        assert torch.equal(each.parts["image"][..., :-1], torch.zeros(4, 2, 3))
        assert torch.equal(each.parts["image"][..., -1], rows[..., -1])
    assert found.perp_negatives
    for negative in found.perp_negatives:
        assert torch.equal(negative.condition.parts["image"], rows[negative.views])


def test_whatever_is_wrong_is_one_sentence(folder: Path, picture: str, tmp_path: Path) -> None:
    adapter = write_tiny_ip_adapter(tmp_path / "adapter", folder)

    def sentence(key: str | Path = adapter, shown: str = picture, width: int = 12) -> str:
        def read() -> StableDiffusionPrior:
            files = find_image_prompt(shown, str(key) or None, width)
            return StableDiffusionPrior.load(str(folder), HOST, image_prompt=files)

        with pytest.raises(PriorError) as error:
            read()
        assert "\n" not in str(error.value)
        return str(error.value)

    def copy(name: str) -> Path:
        return Path(shutil.copytree(adapter, tmp_path / name))

    assert "but there is no such file" in sentence(shown="gone.png")
    assert "is no picture that can be read" in sentence(shown=str(adapter / "adapter.safetensors"))
    assert "no adapter for a prior that reads text of width 1024" in sentence("", width=1024)
    assert "is no folder here, no .safetensors file and no hub id" in sentence("a/b/c.bin")
    alone = copy("alone")
    shutil.rmtree(alone / "image_encoder")
    assert "has no image encoder: neither" in sentence(alone)
    two = copy("two")
    shutil.copy(two / "adapter.safetensors", two / "other.safetensors")
    assert "has 2 .safetensors files, but must have the one" in sentence(two)
    weights = load_file(adapter / "adapter.safetensors")

    def with_weights(name: str, changed: dict[str, Tensor]) -> str:
        there = copy(name)
        save_file(changed, there / "adapter.safetensors")
        return sentence(there)

    first = "ip_adapter.1.to_k_ip.weight"
    wide = {**weights, first: torch.randn(16, 768)}
    assert "its tokens have width 768 (Stable Diffusion 1), and the prior reads 12." in with_weights(
        "wide", wide
    )
    assert "it is no IP-Adapter" in with_weights("none", {"a": torch.ones(1)})
    face = {
        name.replace("image_proj.proj.weight", "image_proj.proj.0.weight"): each
        for name, each in weights.items()
    }
    assert "it is a FaceID adapter" in with_weights("face", face)
    other = {**weights, "image_proj.proj.weight": torch.randn(48, 11)}
    assert "as vectors of 11 numbers, and the image encoder" in with_weights("other", other)
    short = {name: values for name, values in weights.items() if not name.startswith("ip_adapter.5")}
    assert "is no IP-Adapter of this prior" in with_weights("short", short)
    broken = {**weights, first: torch.full_like(weights[first], torch.nan)}
    assert "weights that are not finite" in with_weights("broken", broken)
