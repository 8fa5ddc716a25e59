"""Stable Diffusion 1.5, 2.1-base and 2.1 at their true sizes with random weights: as folders, single files, and adapted."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from huggingface_hub import constants
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from config.schema import Config
from guidance import PromptEmbeddings, build
from guidance.prior import StableDiffusionPrior
from guidance.prior.adaptations import Adaptations
from tests import stable_diffusions
from tests.draws import rngs
from tests.guidance.prior.texts import embedded, noise_by
from tests.ldm import write_single_file
from tests.lora import changes, kohya, lora
from tests.stable_diffusions import SD15, SD21, SD21_BASE, StableDiffusion
from utils.device import HOST

LATENTS = 8
"""Width and height of the latents: the weights are those of 64 or 96, the work is not."""
SCALE = 0.5
FILES = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Path]:
    """A folder that is removed when the test is over: what is written there takes gigabytes."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set HF_HUB_OFFLINE=1, as far as that is possible after the libraries are loaded, and take away the network."""

    def refuse(*address: object) -> None:
        raise AssertionError(f"somebody asked for {address}")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("model", [SD15, SD21_BASE, SD21], ids=lambda model: model.name)
def test_parameter_counts(model: StableDiffusion) -> None:
    with torch.device("meta"):
        networks = {name: make() for name, make in model.makers.items()}
    assert {name: _size(network) for name, network in networks.items()} == model.parameters


@pytest.mark.thorough
@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    "model",
    [SD15, SD21],
    ids=lambda model: model.name,
)
def test_it_is_loaded_runs_and_is_adapted(model: StableDiffusion, space: Path) -> None:
    """A folder is loaded; then one file, with a LoRA (1.5: kohya's layout, convolutions too) and a textual inversion.

    2.1-base, whose networks are those of 2.1, goes through the whole program in tests/test_sd21.py.
    """
    folder = stable_diffusions.write_folder(model, space / "folder", sample_size=LATENTS)
    prior = StableDiffusionPrior.load(str(folder), HOST)
    assert {name: _size(getattr(prior, name)) for name in FILES} == model.parameters
    assert set(_differences(prior, folder, {})) == set()
    assert prior.image_size == 8 * LATENTS
    assert embedded(prior, ["a mug"]).shape == (1, 77, 768 if model is SD15 else 1024)
    _check_prediction(prior, folder, model.prediction_type)
    _check_gradient(prior)
    plain, low = _answer(prior), lora(prior, rank=4)
    # One model in memory at a time.
    del prior

    file, added = kohya(low) if model is SD15 else (low, changes(low))
    save_file(file, space / "lora.safetensors")
    width = 768 if model is SD15 else 1024
    learned = torch.randn(2, width, generator=torch.Generator().manual_seed(0))
    save_file({"emb_params": learned}, space / "toy.safetensors")
    single = write_single_file(folder, space / "single.safetensors")
    given = Adaptations(
        lora=str(space / "lora.safetensors"), lora_scale=SCALE, words=str(space / "toy.safetensors")
    )
    prior = StableDiffusionPrior.load(str(single), HOST, base_model_key=str(folder), adaptations=given)
    embeddings = prior.text_encoder.get_input_embeddings()
    tokens = prior.tokenizer(prior._spell("a toy")).input_ids
    assert torch.equal(embeddings.weight[tokens[-3:-1]], learned)
    embeddings.weight = nn.Parameter(embeddings.weight[: stable_diffusions.WORDS], requires_grad=False)
    # Every weight is the folder's, with the LoRA's product where there is one.
    assert set(_differences(prior, folder, added)) == set()
    assert {name for name in added if name.startswith("unet.mid_block")}
    assert not torch.allclose(_answer(prior), plain, rtol=0.01)
    _check_prediction(prior, folder, model.prediction_type)


def _size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _differences(prior: StableDiffusionPrior, folder: Path, added: dict[str, Tensor]) -> Iterator[str]:
    """Yield, one tensor in memory at a time, names of weights that are not the folder's plus SCALE times `added`."""
    for name, file in FILES.items():
        weights = getattr(prior, name).state_dict()
        with safe_open(folder / file, framework="pt") as stored:
            keys = stored.keys()
            assert set(keys) == set(weights)
            for key in keys:
                expected = stored.get_tensor(key).float()
                change = added.get(f"{name}.{key}")
                if change is None:
                    same = torch.equal(weights[key], expected)
                else:
                    same = torch.allclose(weights[key], expected + SCALE * change, rtol=1e-5, atol=1e-5)
                if not same:
                    yield f"{name}.{key}"


def _answer(prior: StableDiffusionPrior) -> Tensor:
    """Noise predicted for one latent."""
    z = torch.randn(1, 4, LATENTS, LATENTS, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return noise_by(prior, z, torch.tensor([300]), embedded(prior, ["a mug"]))


def _check_prediction(prior: StableDiffusionPrior, folder: Path, prediction_type: str) -> None:
    """Check z = alpha x + sigma eps with the clean x that diffusers' scheduler makes of the U-Net's answer."""
    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    assert scheduler.config.prediction_type == prediction_type
    scheduler.set_timesteps(50)
    z, t = (
        torch.randn(1, 4, LATENTS, LATENTS, generator=torch.Generator().manual_seed(1)),
        torch.tensor([500]),
    )
    cond = embedded(prior, ["a mug"])
    with torch.no_grad():
        eps, said = noise_by(prior, z, t, cond), prior.unet(z, t, cond).sample
    assert torch.equal(eps, said) == (prediction_type == "epsilon")
    clean, abar = scheduler.step(said, 500, z).pred_original_sample, scheduler.alphas_cumprod[500]
    torch.testing.assert_close(z, abar.sqrt() * clean + (1 - abar).sqrt() * eps, rtol=1e-4, atol=1e-5)


def _check_gradient(prior: StableDiffusionPrior) -> None:
    """Check that SCTD's gradient, with negative prompt and guidance, reaches an image of another size."""
    images = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0)).requires_grad_()
    conditioning = PromptEmbeddings(prior, "a mug", negative="ugly").at(
        torch.tensor([130.0]), torch.tensor([90.0])
    )
    guidance = build(Config(guidance_type="sctd"), prior)
    output = guidance(images, conditioning, 0, rngs(len(images)))
    output.loss.backward()
    assert images.grad is not None
    assert bool(torch.isfinite(images.grad).all())
    assert float(images.grad.norm()) > 0
    assert float(output.diagnostics["unet_evals_per_view"]) >= 4
