"""The Stable Diffusion prior on tiny random models: same classes and folder layout, other sizes."""

from __future__ import annotations

import gc
import json
import logging
import shutil
import weakref
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from config.schema import Config
from guidance import PromptEmbeddings, build
from guidance.prior import Adaptations, PriorError, StableDiffusionPrior
from tests.draws import rngs
from tests.tiny_diffusers import write_tiny_folder
from utils.device import resolve_device

HOST = resolve_device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def prior(folder: Path) -> StableDiffusionPrior:
    return StableDiffusionPrior.load(str(folder), HOST)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy of the folder to break."""
    return Path(shutil.copytree(folder, tmp_path / "model"))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()


def test_what_is_loaded(prior: StableDiffusionPrior) -> None:
    assert prior.image_size == 32
    assert prior.unet.dtype == prior.vae.dtype == torch.float32
    assert len(prior.alphas_cumprod) == 1000
    for network in (prior.vae, prior.unet, prior.text_encoder):
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())


def test_encode_is_the_scaled_posterior_mean(prior: StableDiffusionPrior, images: Tensor) -> None:
    latents = prior.encode(images)
    assert latents.shape == (2, 4, 16, 16)
    expected = prior.vae.encode(2 * images - 1).latent_dist.mode() * prior.vae.config.scaling_factor
    torch.testing.assert_close(latents, expected)
    assert torch.equal(latents, prior.encode(images))


def test_decode_undoes_the_scaling(prior: StableDiffusionPrior, images: Tensor) -> None:
    latents = prior.encode(images)
    decoded = prior.decode(latents)
    expected = prior.vae.decode(latents / prior.vae.config.scaling_factor).sample
    assert decoded.shape == images.shape
    torch.testing.assert_close(decoded, (expected / 2 + 0.5).clamp(0, 1))


def test_other_image_sizes_are_resized(prior: StableDiffusionPrior, images: Tensor) -> None:
    # Two-fold nearest enlargement, averaged back: smooth images survive it nearly unchanged.
    smooth = torch.nn.functional.avg_pool2d(images, 9, 1, 4).detach()
    large = torch.nn.functional.interpolate(smooth, scale_factor=2, mode="bilinear").requires_grad_()
    torch.testing.assert_close(prior.encode(large), prior.encode(smooth), rtol=0.05, atol=0.02)
    prior.encode(large).sum().backward()
    assert large.grad.shape == (2, 3, 64, 64)


def test_embedding_takes_the_last_hidden_state(prior: StableDiffusionPrior) -> None:
    embedded = prior.embed(["a mug", "", "a mug"])
    assert embedded.shape == (3, 16, 12)
    assert torch.equal(embedded[0], embedded[2])
    assert not torch.equal(embedded[0], embedded[1])
    assert not embedded.requires_grad


def test_a_prompt_that_is_cut_is_reported(
    prior: StableDiffusionPrior, caplog: pytest.LogCaptureFixture
) -> None:
    prior.embed(["short"])
    assert not caplog.messages
    prior.embed(["a prompt of more than sixteen letters"])
    assert caplog.messages == ["the prompt is cut at 16 tokens: a prompt of more than sixteen letters"]


def test_epsilon_is_the_network_s_output(prior: StableDiffusionPrior) -> None:
    z, t = torch.randn(3, 4, 16, 16), torch.tensor([20, 500, 980])
    cond = prior.embed(["a", "b", "c"])
    with torch.no_grad():
        expected = prior.unet(z, t, encoder_hidden_states=cond).sample
        assert torch.equal(prior.eps(z, t, cond), expected)


def test_v_prediction_becomes_the_noise_that_the_scheduler_means(tmp_path: Path) -> None:
    """The noise eps fits z = alpha x + sigma eps with the clean sample x that diffusers computes from v."""
    prior = StableDiffusionPrior.load(str(write_tiny_folder(tmp_path, prediction_type="v_prediction")), HOST)
    scheduler = DDIMScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    scheduler.set_timesteps(50)
    z, t = torch.randn(3, 4, 16, 16), torch.tensor([20, 500, 980])
    cond = prior.embed(["a", "b", "c"])
    with torch.no_grad():
        eps = prior.eps(z, t, cond)
        v = prior.unet(z, t, encoder_hidden_states=cond).sample
    for view, time in enumerate(t.tolist()):
        clean = scheduler.step(v[view], time, z[view]).pred_original_sample
        abar = scheduler.alphas_cumprod[time]
        torch.testing.assert_close(
            z[view], abar.sqrt() * clean + (1 - abar).sqrt() * eps[view], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("guidance_type", ["sds", "sctd"])
def test_gradient_reaches_the_images(prior: StableDiffusionPrior, images: Tensor, guidance_type: str) -> None:
    prompts = PromptEmbeddings(prior, "a mug", negative="ugly")
    conditioning = prompts.at(torch.tensor([0.0, 130.0]), torch.tensor([90.0, 20.0]))
    output = build(Config(guidance_type=guidance_type), prior)(images, conditioning, 0, rngs(len(images)))
    output.loss.backward()
    assert bool(torch.isfinite(images.grad).all())
    assert bool((images.grad.flatten(1).norm(dim=1) > 0).all())
    assert all(torch.as_tensor(value).dim() == 0 for value in output.diagnostics.values())
    assert not any(p.grad is not None for p in prior.unet.parameters())


def test_weights_with_the_old_prefix_of_the_text_encoder_are_read(
    prior: StableDiffusionPrior, copy: Path
) -> None:
    """Stable Diffusion's own files call them text_model.*, and keep a buffer that transformers dropped."""
    path = copy / "text_encoder" / "model.safetensors"
    old = {f"text_model.{name}": value for name, value in load_file(path).items()}
    old["text_model.embeddings.position_ids"] = torch.arange(16)[None]
    save_file(old, path, metadata={"format": "pt"})
    loaded = StableDiffusionPrior.load(str(copy), HOST)
    assert torch.equal(loaded.embed(["a mug"]), prior.embed(["a mug"]))


def test_half_precision_files_run_in_float32_on_the_host(prior: StableDiffusionPrior, copy: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(copy / "unet").half()
    (copy / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    unet.save_pretrained(copy / "unet", variant="fp16")
    loaded = StableDiffusionPrior.load(str(copy), HOST)
    assert loaded.unet.dtype == torch.float32
    z, t, cond = torch.randn(1, 4, 16, 16), torch.tensor([500]), prior.embed(["a"])
    with torch.no_grad():
        torch.testing.assert_close(loaded.eps(z, t, cond), prior.eps(z, t, cond), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_folder_without_a_part_says_which(copy: Path, part: str) -> None:
    shutil.rmtree(copy / part)
    with pytest.raises(PriorError) as error:
        StableDiffusionPrior.load(str(copy), HOST)
    assert f"lacks {part}/" in str(error.value)
    assert str(copy) in str(error.value)
    assert "--model_key toybox" in str(error.value)


def test_a_file_without_some_weights_says_so(copy: Path) -> None:
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["conv_in.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(PriorError, match=r"a unet without 1 of its weights \(conv_in.weight"):
        StableDiffusionPrior.load(str(copy), HOST)


def test_a_damaged_file_says_so(copy: Path) -> None:
    path = copy / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(PriorError, match=r"has a vae in .* that cannot be loaded"):
        StableDiffusionPrior.load(str(copy), HOST)


def test_a_prediction_of_another_kind_is_refused(copy: Path) -> None:
    path = copy / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "sample"}))
    with pytest.raises(PriorError, match="'sample', not 'epsilon' or 'v_prediction'"):
        StableDiffusionPrior.load(str(copy), HOST)


def test_loading_prints_nothing(
    folder: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        StableDiffusionPrior.load(str(folder), HOST).embed(["a mug"])
    captured = capfd.readouterr()
    assert (captured.out, captured.err, caplog.messages) == ("", "", [])


def test_a_differentiated_unet_keeps_blocks_only_and_gives_the_same_derivative(
    prior: StableDiffusionPrior,
) -> None:
    """The derivative is that of a chain of two evaluations, as in SCTD without its approximation."""
    z0, cond = torch.randn(2, 4, 16, 16), prior.embed(["a", "b"])

    def derivative() -> tuple[Tensor, int]:
        kept = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        z = z0.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            eps = prior.eps(z, torch.tensor([100, 300]), cond)
            loss = prior.eps(z - 0.5 * eps, torch.tensor([400, 600]), cond).square().sum()
        return torch.autograd.grad(loss, z)[0], kept

    checkpointed, few = derivative()
    prior.unet.disable_gradient_checkpointing()
    plain, many = derivative()
    prior.unet.enable_gradient_checkpointing()
    torch.testing.assert_close(checkpointed, plain, rtol=1e-5, atol=1e-6)
    assert few < many / 2


@pytest.mark.parametrize("name", ["vae", "unet"])
def test_a_network_that_overflows_in_half_precision_leaves_it(
    folder: Path, images: Tensor, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """A last convolution is made so strong that answers pass 65504, where float16 ends."""
    prior = StableDiffusionPrior.load(str(folder), HOST)
    last = prior.vae.quant_conv if name == "vae" else prior.unet.conv_out
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.mul_(6e4 / parameter.abs().max())
    images = 1e2 * images.detach()
    t, cond = torch.tensor([500, 500]), 30 * prior.embed(["a mug", "a car"])
    z = 30 * torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))

    def answer() -> Tensor:
        return prior.encode(images) if name == "vae" else prior.eps(z, t, cond)

    precise = answer()
    scale = prior.vae.config.scaling_factor if name == "vae" else 1
    assert float(precise.abs().max()) > 65504 * scale
    for network in (prior.vae, prior.unet):
        network.half()
    assert not torch.isfinite(answer()).all()
    assert (prior.vae.dtype, prior.unet.dtype) == (torch.float16, torch.float16), "nobody has asked yet"
    assert prior.widen_overflowed()
    assert float((answer() - precise).norm() / precise.norm()) < 0.1
    assert not prior.widen_overflowed()
    assert getattr(prior, name).dtype == torch.bfloat16
    assert ({"vae": prior.unet, "unet": prior.vae}[name]).dtype == torch.float16
    assert caplog.text.count("leaves the range of float16: from here on it runs in bfloat16") == 1


def test_the_text_encoder_is_freed(folder: Path, tmp_path: Path) -> None:
    """A prior with a textual inversion frees it too, though a whole pipeline knows how prompts are spelt."""
    torch.save({"<toy>": torch.randn(2, 12)}, tmp_path / "toy.bin")
    for words in (None, str(tmp_path / "toy.bin")):
        prior = StableDiffusionPrior.load(str(folder), HOST, adaptations=Adaptations(words=words))
        prompts = PromptEmbeddings(prior, "a <toy>")
        weights = [weakref.ref(weight) for weight in prior.text_encoder.parameters()]
        prior.free_text_encoder()
        gc.collect()
        assert not any(weight() is not None for weight in weights)
        conditioning = prompts.at(torch.tensor([0.0]), torch.tensor([90.0]))
        assert torch.isfinite(
            prior.eps(torch.zeros(1, 4, 16, 16), torch.tensor([500]), conditioning.positive)
        ).all()
        with pytest.raises(RuntimeError, match="The text encoder has been freed: embed every prompt before"):
            prior.embed(["a mug"])


def test_encoding_singly_gives_the_same_and_holds_less(prior: StableDiffusionPrior) -> None:
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = {}
    for singly in (False, True):
        prior.encode_singly = singly
        held = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal held
            held += tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            latents = prior.encode(images)
        gradient = torch.autograd.grad(latents.square().sum(), images)[0]
        decoded = prior.decode(latents.detach())
        found[singly] = (latents, gradient, decoded), held
    prior.encode_singly = False
    torch.testing.assert_close(found[True][0], found[False][0], rtol=1e-5, atol=1e-5)
    assert found[True][1] < found[False][1] / 20


def test_views_are_encoded_and_decoded_one_by_one(
    prior: StableDiffusionPrior, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prior, "encode_singly", True)
    seen: list[int] = []
    halves = (prior.vae.encoder, prior.vae.decoder)
    hooks = [
        half.register_forward_pre_hook(lambda module, args: seen.append(len(args[0]))) for half in halves
    ]
    prior.decode(prior.encode(images).detach())
    for hook in hooks:
        hook.remove()
    assert seen == [1, 1, 1, 1]
