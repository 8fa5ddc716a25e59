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
from transformers import CLIPTextConfig, CLIPTextModel

from config.schema import Config
from guidance import PromptEmbeddings, build
from guidance.prior import Adaptations, PriorError, StableDiffusionPrior
from guidance.prior.model_files import find_model
from guidance.prior.networks import read_networks
from guidance.prompts import VIEW_WORDS
from tests.draws import rngs
from tests.guidance.prior.texts import abar_of, embedded, noise_by
from tests.ldm import write_single_file
from tests.tiny_diffusers import write_index, write_tiny_folder, write_tiny_small_encoder
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
    assert len(abar_of(prior)) == 1000
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
    found = embedded(prior, ["a mug", "", "a mug"])
    assert found.shape == (3, 16, 12)
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])
    assert not found.requires_grad


def test_long_prompts_are_cut_and_keep_their_view_words(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A token is a letter here: 28 of 30 are left for a text, 13 of them for ', overhead view'."""
    prior = StableDiffusionPrior.load(str(widened(folder, tmp_path / "wide", 30)), HOST)
    views = {}
    for text in ("a red, tall mug on a table", "y" * 40):
        views[text] = embedded(prior, [*(text + words for words in VIEW_WORDS), text, ""])
        some = views[text][:4]
        assert all(not torch.equal(some[one], some[other]) for one in range(4) for other in range(one))
    assert torch.equal(views["y" * 40][3:5], embedded(prior, ["y" * 15 + VIEW_WORDS[3], "y" * 15]))
    assert torch.equal(
        views["a red, tall mug on a table"][:1], embedded(prior, ["a red, tall mug on a, front view"])
    )
    assert caplog.messages == [
        "A prompt is longer than the 30 tokens that the text encoder reads: of 'a red, tall mug on a table' it leaves out "
        "'table', and the view words stay.",
        f"A prompt is longer than the 30 tokens that the text encoder reads: of '{'y' * 40}' it leaves out '{'y' * 25}', "
        "and the view words stay.",
    ]
    caplog.clear()
    embedded(prior, ["y" * 30])
    assert "it leaves out 'yy'." in caplog.text


def test_a_word_of_several_vectors_is_left_out_whole(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save({"<toy>": torch.randn(9, 12)}, tmp_path / "toy.bin")
    wide = str(widened(folder, tmp_path / "wide", 30))
    prior = StableDiffusionPrior.load(wide, HOST, adaptations=Adaptations(words=str(tmp_path / "toy.bin")))
    embedded(prior, ["a mug <toy> a, front view"])
    assert not caplog.messages
    embedded(prior, ["a larger mug <toy> a, front view"])
    assert "it leaves out '<toy> a', and the view words stay" in caplog.text


def widened(folder: Path, path: Path, length: int) -> Path:
    """Copy a model, with a text encoder that reads `length` tokens."""
    shutil.copytree(folder, path)
    encoder = CLIPTextModel.from_pretrained(path / "text_encoder")
    config = CLIPTextConfig(**{**encoder.config.to_dict(), "max_position_embeddings": length})
    CLIPTextModel(config).save_pretrained(path / "text_encoder")
    return path


def test_epsilon_is_the_network_s_output(prior: StableDiffusionPrior) -> None:
    z, t = torch.randn(3, 4, 16, 16), torch.tensor([20, 500, 980])
    cond = embedded(prior, ["a", "b", "c"])
    with torch.no_grad():
        expected = prior.unet(z, t, encoder_hidden_states=cond).sample
        assert torch.equal(noise_by(prior, z, t, cond), expected)


def test_v_prediction_becomes_the_noise_that_the_scheduler_means(tmp_path: Path) -> None:
    """The noise eps fits z = alpha x + sigma eps with the clean sample x that diffusers computes from v."""
    prior = StableDiffusionPrior.load(str(write_tiny_folder(tmp_path, prediction_type="v_prediction")), HOST)
    scheduler = DDIMScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    scheduler.set_timesteps(50)
    z, t = torch.randn(3, 4, 16, 16), torch.tensor([20, 500, 980])
    cond = embedded(prior, ["a", "b", "c"])
    with torch.no_grad():
        eps = noise_by(prior, z, t, cond)
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
    assert torch.equal(embedded(loaded, ["a mug"]), embedded(prior, ["a mug"]))


def test_half_precision_files_run_in_float32_on_the_host(prior: StableDiffusionPrior, copy: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(copy / "unet").half()
    (copy / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    unet.save_pretrained(copy / "unet", variant="fp16")
    loaded = StableDiffusionPrior.load(str(copy), HOST)
    assert loaded.unet.dtype == torch.float32
    z, t, cond = torch.randn(1, 4, 16, 16), torch.tensor([500]), embedded(prior, ["a"])
    with torch.no_grad():
        torch.testing.assert_close(
            noise_by(loaded, z, t, cond), noise_by(prior, z, t, cond), rtol=0.01, atol=0.01
        )


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


def test_weights_that_are_not_finite_are_named(
    copy: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages name file and tensor as the file has them: of a folder, of shards, of pickles and of a single file."""
    write_index(copy)
    unet = UNet2DConditionModel.from_pretrained(copy / "unet")
    with torch.no_grad():
        unet.conv_out.weight[0, 0, 0] = torch.tensor([torch.nan, torch.inf, 1.0])
        unet.conv_out.bias[1] = -torch.inf
    words = r"a unet with weights that are not finite: conv_out\.bias in {}.* holds 1 of 4, and so do 1 more tensors"
    shutil.rmtree(copy / "unet")
    unet.save_pretrained(copy / "unet", max_shard_size="100KB")
    assert len(list((copy / "unet").glob("*.safetensors"))) > 1
    with pytest.raises(PriorError, match=words.format(".*-of-")):
        StableDiffusionPrior.load(str(copy), HOST)
    shutil.rmtree(copy / "unet")
    unet.save_pretrained(copy / "unet", safe_serialization=False)
    with pytest.raises(PriorError, match=r"conv_out.* in .*pytorch_model\.bin holds"):
        StableDiffusionPrior.load(str(copy), HOST)
    shutil.rmtree(copy / "unet")
    unet.save_pretrained(copy / "unet")
    single = write_single_file(copy, tmp_path / "whole.safetensors")
    with pytest.raises(
        PriorError, match=r"not finite: model\.diffusion_model\.out\.2\..* in .*whole\.safetensors holds"
    ):
        StableDiffusionPrior.load(str(single), HOST, base_model_key=str(copy))
    with torch.no_grad():
        unet.conv_out.weight.fill_(1e5)
        unet.conv_out.bias.fill_(0.0)
    shutil.rmtree(copy / "unet")
    unet.save_pretrained(copy / "unet")
    with pytest.raises(
        PriorError, match=r"1 tensors, conv_out\.weight the first, .* half precision: --fp16 false"
    ):
        read_networks(find_model(str(copy), half=True), str(copy), torch.float16)


@pytest.mark.parametrize("safe", [True, False])
def test_shards_give_the_same_weights(prior: StableDiffusionPrior, copy: Path, safe: bool) -> None:
    for name, network in (("unet", UNet2DConditionModel), ("text_encoder", CLIPTextModel)):
        whole = network.from_pretrained(copy / name)
        shutil.rmtree(copy / name)
        options = {} if name == "text_encoder" else {"safe_serialization": safe}
        whole.save_pretrained(copy / name, max_shard_size="30KB", **options)
        assert not list((copy / name).glob("*model.safetensors"))
    loaded = StableDiffusionPrior.load(str(copy), HOST)
    assert torch.equal(embedded(loaded, ["a mug"]), embedded(prior, ["a mug"]))
    for weight, expected in zip(loaded.unet.parameters(), prior.unet.parameters(), strict=True):
        assert torch.equal(weight, expected)


def test_a_prediction_of_another_kind_is_refused(copy: Path) -> None:
    path = copy / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "edm"}))
    with pytest.raises(PriorError, match=r"'edm' in scheduler/scheduler_config\.json, which must be epsilon"):
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
    z0, cond = torch.randn(2, 4, 16, 16), embedded(prior, ["a", "b"])

    def derivative() -> tuple[Tensor, int]:
        kept = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        z = z0.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            eps = noise_by(prior, z, torch.tensor([100, 300]), cond)
            loss = noise_by(prior, z - 0.5 * eps, torch.tensor([400, 600]), cond).square().sum()
        return torch.autograd.grad(loss, z)[0], kept

    checkpointed, few = derivative()
    prior.unet.disable_gradient_checkpointing()
    plain, many = derivative()
    prior.unet.enable_gradient_checkpointing()
    torch.testing.assert_close(checkpointed, plain, rtol=1e-5, atol=1e-6)
    assert few < many / 2


@pytest.mark.parametrize("name", ["vae", "unet", "small_encoder"])
def test_a_network_that_overflows_in_half_precision_leaves_it(
    folder: Path, tmp_path: Path, images: Tensor, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """A last convolution is made so strong that answers pass 65504, where float16 ends."""
    small = write_tiny_small_encoder(tmp_path / "small")
    prior = StableDiffusionPrior.load(str(folder), HOST, small_encoder=True, small_encoder_key=str(small))
    lasts = {"vae": prior.vae.quant_conv, "unet": prior.unet.conv_out}
    last = lasts.get(name, prior.small_encoder.encoder.layers[-1])
    prior.encodes_with = "vae" if name == "unet" else name
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.mul_(6e4 / parameter.abs().max())
    images = 1e2 * images.detach()
    t, cond = torch.tensor([500, 500]), 30 * embedded(prior, ["a mug", "a car"])
    z = 30 * torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))

    def answer() -> Tensor:
        return noise_by(prior, z, t, cond) if name == "unet" else prior.encode(images)

    precise = answer()
    scale = prior.vae.config.scaling_factor if name == "vae" else 1
    assert float(precise.abs().max()) > 65504 * scale
    for network in prior.networks().values():
        network.half()
    assert not torch.isfinite(answer()).all()
    assert {network.dtype for network in prior.networks().values()} == {torch.float16}, "nobody has asked yet"
    assert prior.widen_overflowed()
    assert float((answer() - precise).norm() / precise.norm()) < 0.1
    assert not prior.widen_overflowed()
    wide = {other for other, network in prior.networks().items() if network.dtype == torch.bfloat16}
    assert wide == {name}
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
            prior.predict(torch.zeros(1, 4, 16, 16), torch.tensor([500]), conditioning.positive).eps
        ).all()
        with pytest.raises(RuntimeError, match="The text encoder has been freed: embed every prompt before"):
            embedded(prior, ["a mug"])


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
