"""Families in diffusers' pipelines: tiny models, made and saved by these, give what these give."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler
from diffusers import FlowMatchEulerDiscreteScheduler as FlowEuler
from safetensors.torch import save_file
from torch import Tensor

import config as configuration
from config import Config
from guidance import Conditioning, Denoiser, solver
from guidance.prior import LatentPrior, PriorError, check_prior, load_prior
from guidance.prior.embed import main as embed
from guidance.prior.families import FAMILIES
from guidance.schedule import CLEAN
from tests.guidance.prior.tiny_families import MAKERS, SIDE, stable_diffusion_3, write_family
from tests.tiny_diffusers import write_tiny_small_encoder
from train import train
from utils.device import HOST

TIMES = [900, 500, 101]
SCALE = 3.0
SIZE = ["--prior_image_size", str(SIDE)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: write_family(name, tmp_path_factory.mktemp(name)) for name in MAKERS}


def config_of(folder: Path, embeddings: Path, *flags: str) -> Config:
    return configuration.load(
        [
            "--model_key",
            str(folder),
            "--embeddings",
            str(embeddings),
            "--text",
            "a mug",
            "--fast",
            "false",
            *SIZE,
            *flags,
        ]
    )


def our_latents(prior: LatentPrior, noise: Tensor) -> Tensor:
    """Latents that steps of the solver under classifier-free guidance make of noise."""
    embedded = prior.embed(["a mug", ""])
    negative = embedded[1]
    conditioning = Conditioning(embedded[0], negative, negative, negative_is_unconditional=True)
    z = noise
    with torch.no_grad():
        for start, end in pairwise([*TIMES, CLEAN]):
            t, u = torch.tensor([start]), torch.tensor([end])
            found = Denoiser(prior).guided(z, t, conditioning, SCALE).prediction
            z = solver.step(z, found, t, u, prior.schedule)
    return z


def their_latents(folder: Path, noise: Tensor) -> Tensor:
    """The same by the pipeline's own call and diffusers' own scheduler."""
    index = json.loads((folder / "model_index.json").read_text())
    pipeline: Any = getattr(diffusers, index["_class_name"]).from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    named = pipeline.scheduler.config
    pipeline.scheduler = FlowEuler(shift=named.get("flow_shift") or named.shift)
    settings = {"sigmas": [t / 1000 for t in TIMES], "num_inference_steps": len(TIMES)}
    # Z-Image counts guidance from the prompt's prediction on.
    scale = SCALE - 1 if index["_class_name"] == "ZImagePipeline" else SCALE
    more = {"use_resolution_binning": False} if index["_class_name"] == "SanaPipeline" else {}
    size = {"height": SIDE, "width": SIDE}
    found: Tensor = pipeline(
        "a mug", latents=noise, guidance_scale=scale, output_type="latent", **size, **settings, **more
    ).images
    return found


@pytest.mark.parametrize("name", MAKERS)
def test_samples_are_those_of_the_pipeline(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """Texts, times, sign and guidance are right together; the text encoders are asked once, and then not needed."""
    prior = load_prior(config_of(folders[name], tmp_path), HOST)
    assert prior.image_size == SIDE
    noise = torch.randn(1, *prior.latents, generator=torch.Generator().manual_seed(0))
    if name == "StableDiffusionXLPipeline":
        found, expected = our_latents(prior, noise), xl_latents(folders[name], noise)
    else:
        found, expected = our_latents(prior, noise), their_latents(folders[name], noise)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    without = Path(shutil.copytree(folders[name], tmp_path / "without"))
    for encoder in without.glob("text_encoder*"):
        shutil.rmtree(encoder)
    again = load_prior(config_of(without, tmp_path), HOST)
    torch.testing.assert_close(our_latents(again, noise), found)
    with pytest.raises(PriorError, match=r"lacks text_encoder.*guidance\.prior\.embed"):
        again.embed(["another"])


def xl_latents(folder: Path, noise: Tensor) -> Tensor:
    """The U-Net of the pipeline, called with what its own `encode_prompt` and time ids give, by DDIM's steps."""
    pipeline: Any = diffusers.StableDiffusionXLPipeline.from_pretrained(folder)
    text, empty, pooled, no_pooled = pipeline.encode_prompt("a mug", do_classifier_free_guidance=True)
    ids = pipeline._get_add_time_ids((SIDE, SIDE), (0, 0), (SIDE, SIDE), torch.float32, pooled.shape[-1])
    scheduler, z = DDIMScheduler.from_config(pipeline.scheduler.config), noise
    abar = torch.cat([scheduler.alphas_cumprod.double(), torch.ones(1)])
    with torch.no_grad():
        for t, u in pairwise([*TIMES, CLEAN]):
            eps, without = (
                pipeline.unet(z, t, each, added_cond_kwargs={"text_embeds": vector, "time_ids": ids}).sample
                for each, vector in ((text, pooled), (empty, no_pooled))
            )
            eps = without + SCALE * (eps - without)
            clean = (z - (1 - abar[t]).sqrt() * eps) / abar[t].sqrt()
            z = (abar[u].sqrt() * clean + (1 - abar[u]).sqrt() * eps).float()
    return z


@pytest.mark.parametrize("name", MAKERS)
def test_images_go_through_the_autoencoder_as_diffusers_has_it(
    name: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    prior: Any = load_prior(config_of(folders[name], tmp_path), HOST)
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    z = prior.encode(images)
    assert z.shape == (2, *prior.latents)
    config = prior.vae.config
    encoded = prior.vae.encode(2 * images - 1)
    mean = encoded.latent if name == "SanaPipeline" else encoded.latent_dist.mean
    shift = config.get("shift_factor") or 0.0
    torch.testing.assert_close(z, (mean - shift) * config.scaling_factor)
    decoded = prior.vae.decode(z / config.scaling_factor + shift).sample
    torch.testing.assert_close(prior.decode(z), (decoded / 2 + 0.5).clamp(0, 1))
    prior.encode_singly = True
    torch.testing.assert_close(prior.encode(images), z)


def test_a_small_encoder_takes_the_autoencoders_place(folders: dict[str, Path], tmp_path: Path) -> None:
    """In the scale that its own file names; a family for which none is published is told so before anything is loaded."""
    small = write_tiny_small_encoder(tmp_path / "small", scaling_factor=0.7, shift_factor=0.1)
    flags = ["--encoder", "small", "--small_encoder_key", str(small)]
    prior: Any = load_prior(config_of(folders["ZImagePipeline"], tmp_path, *flags), HOST)
    plain = load_prior(config_of(folders["ZImagePipeline"], tmp_path), HOST)
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(prior.encode(images), plain.encode(images))
    prior.encodes_with = "small_encoder"
    raw = diffusers.AutoencoderTiny.from_pretrained(small).encode(2 * images - 1).latents
    torch.testing.assert_close(prior.encode(images), (raw - 0.1) * 0.7)
    assert prior.fingerprint != plain.fingerprint
    with pytest.raises(PriorError, match=r"no small encoder of this family is known; --small_encoder_key"):
        check_prior(config_of(folders["SanaPipeline"], tmp_path, "--encoder", "small"), HOST)


def test_a_text_encoder_that_is_left_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    stable_diffusion_3(tmp_path / "model", t5=False).save_pretrained(tmp_path / "model")
    prior = load_prior(config_of(tmp_path / "model", tmp_path), HOST)
    text = prior.embed(["a mug"]).parts["text"]
    assert float(text[:, 16:].abs().max()) == 0
    assert float(text[:, :16].abs().min()) > 0


def test_embeddings_are_made_on_another_machine(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folders["ZImagePipeline"]
    flags = [
        "--model_key",
        str(folder),
        "--text",
        "a mug",
        "--fast",
        "false",
        "--embeddings",
        str(tmp_path),
        *SIZE,
    ]
    assert embed(flags) == 0
    assert f"6 texts are in {tmp_path}" in capsys.readouterr().out
    assert len([*tmp_path.glob("*/*.safetensors")]) == 5
    assert embed(["--model_key", "toybox", "--text", "a mug"]) == 1
    assert "nothing is to be kept" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--prior_image_size", "33"], r"prior_image_size is 33, .* multiple of 4"),
        (["--clip_skip", "2"], r"clip_skip is for Stable Diffusion 1 and 2 alone"),
        (["--prediction_type", "epsilon"], r"--prediction_type is epsilon, .* of a flow"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    folders: dict[str, Path], tmp_path: Path, flags: list[str], words: str
) -> None:
    with pytest.raises(PriorError, match=words):
        load_prior(config_of(folders["StableDiffusion3Pipeline"], tmp_path, *flags), HOST)


def test_families_that_are_not_there(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["StableDiffusion3Pipeline"], tmp_path / "model"))
    path = folder / "model_index.json"
    for name, words in (("FluxPipeline", "no true classifier-free"), ("QwenImagePipeline", "what fits is")):
        path.write_text(json.dumps({**json.loads(path.read_text()), "_class_name": name}))
        with pytest.raises(PriorError, match=words):
            load_prior(
                configuration.load(["--model_key", str(folder), "--text", "a mug", "--fast", "false"]), HOST
            )


@pytest.mark.parametrize("name", ["StableDiffusionXLPipeline", "StableDiffusion3Pipeline"])
def test_a_lora_is_added_by_diffusers(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """The change of a weight is scale times up times down, and weights of text encoders are reported."""
    plain: Any = load_prior(config_of(folders[name], tmp_path), HOST)
    core = FAMILIES[name].core
    module = next(
        each
        for each, found in getattr(plain, core).named_modules()
        if each.endswith("to_q") and found.weight.ndim == 2
    )
    weight = getattr(plain, core).get_submodule(module).weight
    down, up = torch.randn(2, weight.shape[1]), torch.randn(weight.shape[0], 2)
    names = {f"{core}.{module}.lora_A.weight": down, f"{core}.{module}.lora_B.weight": up}
    save_file(names, tmp_path / "lora.safetensors")
    flags = ("--LoRA_path", str(tmp_path / "lora.safetensors"), "--LoRA_scale", "0.5")
    changed: Any = load_prior(config_of(folders[name], tmp_path, *flags), HOST)
    found = getattr(changed, core).get_submodule(module).weight
    torch.testing.assert_close(found, weight + 0.5 * up @ down, rtol=1e-4, atol=1e-5)
    assert changed.fingerprint != plain.fingerprint


@pytest.mark.thorough
@pytest.mark.parametrize("method", ["sds", "ism", "cds", "gcs", "sctd"])
@pytest.mark.parametrize("name", MAKERS)
def test_three_iterations_of_every_method(
    name: str, method: str, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = "--quiet --iterations 3 --init_shape sphere --init_num_pts 100 --image_w 32 --image_h 32 --save_video false"
    config = config_of(folders[name], tmp_path, "--guidance_type", method, *flags.split())
    result = train(config)
    assert not result.gaussians.nonfinite()
