"""The small encoder: diffusers' conventions, the ways to its files, and the message when there are none."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3_img2img import retrieve_latents
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from guidance.prior import PriorError, StableDiffusionPrior
from guidance.prior.small_encoder import find_small_encoder, read_small_encoder
from tests.tiny_diffusers import write_tiny_small_encoder
from utils.device import HOST

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small encoder with a scale and a shift of its own, so that no test passes without them."""
    folder = tmp_path_factory.mktemp("small")
    return write_tiny_small_encoder(folder, scaling_factor=0.7, shift_factor=0.1)


@pytest.fixture(scope="module")
def prior(folder: Path, small: Path) -> StableDiffusionPrior:
    found = StableDiffusionPrior.load(str(folder), HOST, small_encoder=True, small_encoder_key=str(small))
    found.encodes_with = "small_encoder"
    return found


def test_latents_and_their_gradient_are_those_of_diffusers_own_pipeline(
    prior: StableDiffusionPrior, small: Path
) -> None:
    """The pipeline from image to image is the reference, and the layers themselves, which take images in [0, 1]."""
    theirs = AutoencoderTiny.from_pretrained(small)
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    g = torch.randn(2, 4, 16, 16)
    z = prior.encode(images)
    prepared = VaeImageProcessor(vae_scale_factor=2).preprocess(images.detach())
    config = theirs.config
    with torch.no_grad():
        expected = (retrieve_latents(theirs.encode(prepared)) - config.shift_factor) * config.scaling_factor
    torch.testing.assert_close(z, expected)
    plain = (theirs.encoder.layers(images) - 0.1) * 0.7
    torch.testing.assert_close(
        torch.autograd.grad(z, images, g)[0], torch.autograd.grad(plain, images, g)[0], rtol=1e-4, atol=1e-5
    )
    prior.encode_singly = True
    torch.testing.assert_close(prior.encode(images), expected)
    prior.encode_singly = False


def test_pictures_are_decoded_by_the_autoencoder(prior: StableDiffusionPrior, folder: Path) -> None:
    alone = StableDiffusionPrior.load(str(folder), HOST)
    z, images = torch.randn(1, 4, 16, 16), torch.rand(1, 3, 32, 32)
    assert torch.equal(prior.decode(z), alone.decode(z))
    assert alone.small_encoder is None
    assert alone.fingerprint != prior.fingerprint, "other weights, other run"
    assert not torch.equal(prior.encode(images), alone.encode(images))


def test_the_one_beside_a_model_comes_first(folder: Path, small: Path, tmp_path: Path) -> None:
    """It leaves the fingerprint of runs that do without it as it was."""
    model = Path(shutil.copytree(folder, tmp_path / "model"))
    before = StableDiffusionPrior.load(str(model), HOST).fingerprint
    shutil.copytree(small, model / "small_encoder")
    assert find_small_encoder(None, model).path == model / "small_encoder"
    assert StableDiffusionPrior.load(str(model), HOST).fingerprint == before
    assert StableDiffusionPrior.load(str(model), HOST, small_encoder=True).fingerprint != before


def test_taesd_is_found_in_the_cache_or_missed_in_one_sentence(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PriorError) as error:
        find_small_encoder(None, tmp_path)
    sentence = str(error.value)
    assert sentence.startswith(
        "small_encoder_key 'madebyollin/taesd' is neither a folder here nor in the cache"
    )
    assert "HF_HUB_OFFLINE" in sentence
    assert sentence.endswith("--encoder full needs none.")
    place = tmp_path / "models--madebyollin--taesd"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("a1b2")
    shutil.copytree(small, place / "snapshots" / "a1b2")
    assert find_small_encoder(None, tmp_path).path == place / "snapshots" / "a1b2"


def test_a_file_with_taesds_own_names(tmp_path: Path, prior: StableDiffusionPrior) -> None:
    """Its tensors are called by the numbers of the encoder's layers."""
    AutoencoderTiny().save_pretrained(tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    start = "encoder.layers."
    own = {name.removeprefix(start): values for name, values in weights.items() if name.startswith(start)}
    save_file(own, tmp_path / "taesd_encoder.safetensors")
    files = find_small_encoder(str(tmp_path / "taesd_encoder.safetensors"), tmp_path)
    picture = torch.rand(1, 3, 64, 64)
    vae = type("Vae", (), {"config": AutoencoderTiny().config})
    read = read_small_encoder(files, vae, torch.float32)
    expected = AutoencoderTiny.from_pretrained(tmp_path).encode(picture).latents
    assert torch.equal(read.encode(picture).latents, expected)
    with pytest.raises(
        PriorError, match=r"4 channels at 1/8 of .*, and the autoencoder of 4 at 1/2: it is of"
    ):
        read_small_encoder(files, prior.vae, torch.float32)
    del own["4.conv.2.weight"]
    save_file(own, tmp_path / "taesd_encoder.safetensors")
    with pytest.raises(
        PriorError, match=r"cannot be read: it is no encoder of TAESD, for 4\.conv\.2\.weight is"
    ):
        read_small_encoder(files, vae, torch.float32)


def test_files_that_cannot_serve(small: Path, tmp_path: Path, prior: StableDiffusionPrior) -> None:
    with pytest.raises(
        PriorError, match=r"'no such thing' is no folder here, no \.safetensors file and no hub id"
    ):
        find_small_encoder("no such thing", tmp_path)
    broken = Path(shutil.copytree(small, tmp_path / "broken"))
    weights = load_file(broken / WEIGHTS)
    files = find_small_encoder(str(broken), tmp_path)
    for change, reason in (
        (
            weights | {"encoder.layers.0.bias": torch.full((8,), torch.nan)},
            "not finite, layers.0.bias the first",
        ),
        (
            {name: weights[name] for name in weights if name != "encoder.layers.0.bias"},
            "lacks 1 of the encoder's",
        ),
    ):
        save_file(change, broken / WEIGHTS, {"format": "pt"})
        with pytest.raises(PriorError, match=reason):
            read_small_encoder(files, prior.vae, torch.float32)
    (broken / WEIGHTS).unlink()
    with pytest.raises(PriorError, match=f"lacks {WEIGHTS} in {broken}"):
        find_small_encoder(str(broken), tmp_path)


def test_latents_of_another_family_are_noticed(
    folder: Path, small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Random networks agree as little as those of two families; toybox's own agree."""
    caplog.set_level(logging.INFO)
    StableDiffusionPrior.load(str(folder), HOST, small_encoder=True, small_encoder_key=str(small))
    [line] = [record for record in caplog.records if "Small encoder" in record.message]
    assert line.levelname == "WARNING"
    assert "of another family" in line.message
    caplog.clear()
    StableDiffusionPrior.load("toybox", HOST, small_encoder=True)
    [line] = [record for record in caplog.records if "Small encoder" in record.message]
    assert line.levelname == "INFO"
