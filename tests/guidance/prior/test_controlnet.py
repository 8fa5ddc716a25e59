"""ControlNets beside the U-Net: diffusers' own pipeline is the reference, in whatever layout their files are."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel, DDIMScheduler, StableDiffusionControlNetPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from guidance import Conditioning, Denoiser
from guidance.prior import PriorError, StableDiffusionPrior
from guidance.prior.controlnet import find_controls
from tests.ldm import unet_name
from tests.tiny_diffusers import write_tiny_controlnet
from utils.device import HOST

WEIGHTS = "diffusion_pytorch_model.safetensors"
SCALES = (1.0, 0.5)


@pytest.fixture(scope="module")
def nets(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("nets")
    return [str(write_tiny_controlnet(root / str(seed), folder, seed=seed)) for seed in (2, 3)]


@pytest.fixture(scope="module")
def plain(folder: Path) -> StableDiffusionPrior:
    return StableDiffusionPrior.load(str(folder), HOST)


def steered(
    folder: Path, nets: list[str], scales: tuple[float, ...] = SCALES, **settings: Any
) -> StableDiffusionPrior:
    controls = find_controls(nets, scales, settings.get("t_range", (0.0, 1.0)))
    return StableDiffusionPrior.load(str(folder), HOST, controls=controls)


def inputs(views: int = 2) -> tuple[Tensor, Tensor]:
    """Latents and pictures."""
    rng = torch.Generator().manual_seed(0)
    return torch.randn(views, 4, 16, 16, generator=rng), torch.rand(views, 2, 3, 32, 32, generator=rng)


def conditioning(prior: StableDiffusionPrior, views: int = 2) -> Conditioning:
    text, nothing = prior.embed(["a mug"]).expand(views), prior.embed([""]).expand(views)
    return Conditioning(text, nothing, nothing, negative_is_unconditional=True)


def test_guided_noise_is_that_of_diffusers_pipeline(
    folder: Path, nets: list[str], plain: StableDiffusionPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    prior = steered(folder, nets)
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    pipeline = StableDiffusionControlNetPipeline.from_pretrained(
        folder,
        controlnet=[ControlNetModel.from_pretrained(net) for net in nets],
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    seen: list[tuple[Tensor, Tensor, int]] = []
    step = scheduler.step

    def noted(noise: Tensor, t: Tensor, z: Tensor, **settings: Any) -> Any:
        seen.append((noise, z, int(t)))
        return step(noise, t, z, **settings)

    monkeypatch.setattr(pipeline.scheduler, "step", noted)
    z, pictures = inputs()
    told = conditioning(prior)
    pipeline(
        prompt_embeds=told.positive.parts["text"],
        negative_prompt_embeds=told.negative.parts["text"],
        image=[*pictures.unbind(1)],
        controlnet_conditioning_scale=[*SCALES],
        latents=z,
        height=32,
        width=32,
        num_inference_steps=2,
        guidance_scale=7.5,
        output_type="latent",
    )
    for noise, latents, t in seen:
        times = torch.full((2,), t)
        found = Denoiser(prior).guided(latents, times, told.shown(pictures), 7.5).prediction.eps
        torch.testing.assert_close(found, noise, rtol=1e-4, atol=1e-4)
        alone = Denoiser(plain).guided(latents, times, told, 7.5).prediction.eps
        assert float((alone - noise).abs().max()) > 0.01
        # Without pictures nothing is added, to the last bit.
        assert torch.equal(Denoiser(prior).guided(latents, times, told, 7.5).prediction.eps, alone)
    assert len(seen) == 2


def test_they_are_not_asked_outside_of_their_times(
    folder: Path, nets: list[str], plain: StableDiffusionPrior
) -> None:
    prior = steered(folder, nets, t_range=(0.2, 0.6))
    rows: list[int] = []
    for net in prior.controlnets.nets:
        net.register_forward_hook(lambda net, given, result: rows.append(len(given[0])))
    z, pictures = inputs(5)
    text, t = prior.embed(["a mug"]).expand(5), torch.tensor([199, 200, 400, 601, 600])
    found = prior.predict(z, t, text.shown(pictures))
    assert rows == [3, 3], "the two ControlNets, for three views"
    always = steered(folder, nets).predict(z, t, text.shown(pictures))
    never = plain.predict(z, t, text)
    acts = torch.tensor([False, True, True, False, True])[:, None, None, None]
    for part in ("eps", "clean"):
        wanted = torch.where(acts, getattr(always, part), getattr(never, part))
        torch.testing.assert_close(getattr(found, part), wanted, rtol=1e-4, atol=1e-4)
    rows.clear()
    assert torch.equal(
        prior.predict(z, torch.full((5,), 700), text.shown(pictures)).eps,
        plain.predict(z, torch.full((5,), 700), text).eps,
    )
    assert rows == []


def test_a_gradient_goes_back_through_them(folder: Path, nets: list[str]) -> None:
    """SCTD without its approximation differentiates the U-Net; the reference is a difference quotient."""
    prior = steered(folder, nets)
    z, pictures = inputs(1)
    told, t = prior.embed(["a mug"]).shown(pictures), torch.tensor([300])
    leaf = z.clone().requires_grad_()
    direction = torch.randn_like(z)
    [gradient] = torch.autograd.grad(prior.predict(leaf, t, told).eps.square().sum(), leaf)
    ends = [
        float(prior.predict(z + step * direction, t, told).eps.double().square().sum())
        for step in (1e-2, -1e-2)
    ]
    assert float((gradient * direction).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-2, rel=0.02)


def test_a_single_file_is_the_same_and_every_file_counts(
    folder: Path, nets: list[str], tmp_path: Path
) -> None:
    file = Path(shutil.copy(Path(nets[0]) / WEIGHTS, tmp_path / "depth.safetensors"))
    z, pictures = inputs()
    found = []
    for net in (nets[0], str(file)):
        prior = steered(folder, [net], (1.0,))
        told = prior.embed(["a mug"]).expand(2).shown(pictures[:, :1])
        found.append((prior.predict(z, torch.tensor([300, 500]), told).eps, prior.fingerprint))
    assert torch.equal(found[0][0], found[1][0])
    assert (
        len(
            {print_ for _, print_ in found}
            | {steered(folder, nets).fingerprint, StableDiffusionPrior.load(str(folder), HOST).fingerprint}
        )
        == 4
    )


def test_a_file_with_the_names_of_its_authors_code(
    folder: Path, plain: StableDiffusionPrior, tmp_path: Path
) -> None:
    """Their layers that take the picture are eight, which makes it eight times smaller."""
    widths = (4, 8, 8, 8)
    net = write_tiny_controlnet(tmp_path / "net", folder, conditioning_embedding_out_channels=widths)
    weights = load_file(net / WEIGHTS)

    def original(name: str) -> str:
        name = re.sub(r"controlnet_down_blocks\.(\d+)", r"zero_convs.\1.0", name)
        name = name.replace("controlnet_mid_block", "middle_block_out.0")
        name = name.replace("controlnet_cond_embedding.conv_in", "input_hint_block.0")
        name = name.replace("controlnet_cond_embedding.conv_out", "input_hint_block.14")
        taking = re.match(r"controlnet_cond_embedding\.blocks\.(\d+)(.*)", name)
        if taking:
            name = f"input_hint_block.{2 * int(taking[1]) + 2}{taking[2]}"
        return name if name.startswith(("zero", "middle", "input")) else unet_name(name, 1, [])

    save_file(
        {f"control_model.{original(name)}": values for name, values in weights.items()},
        tmp_path / "a.safetensors",
    )
    [read] = (
        find_controls([str(tmp_path / "a.safetensors")], [1.0], (0, 1))
        .read(plain.unet, 8, torch.float32)
        .nets
    )
    assert read.state_dict().keys() == weights.keys()
    assert all(torch.equal(values, weights[name]) for name, values in read.state_dict().items())


def test_whatever_is_wrong_is_one_sentence(folder: Path, nets: list[str], tmp_path: Path) -> None:
    def sentence(key: str) -> str:
        with pytest.raises(PriorError) as error:
            steered(folder, [key], (1.0,))
        assert "\n" not in str(error.value)
        assert str(error.value).startswith(f"controlnet_model_key '{key}'")
        return str(error.value)

    assert "is no folder here, no .safetensors file and no hub id" in sentence(
        str(tmp_path / "nowhere" / "x" / "y")
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "lacks config.json, diffusion_pytorch_model.safetensors" in sentence(str(empty))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no weights")
    assert "cannot be read" in sentence(str(broken))
    other = Path(shutil.copy(folder / "vae" / WEIGHTS, tmp_path / "vae.safetensors"))
    assert "it is no ControlNet of this prior" in sentence(str(other))
    fine = str(
        write_tiny_controlnet(tmp_path / "fine", folder, conditioning_embedding_out_channels=(4, 8, 8))
    )
    assert "makes its picture 4 times smaller, and the prior's latents are 2 times smaller" in sentence(fine)
    deep = str(write_tiny_controlnet(tmp_path / "deep", folder, conditioning_channels=1))
    assert "it has 1 channels of condition" in sentence(deep)
    wide = tmp_path / "wide"
    ControlNetModel(
        cross_attention_dim=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        conditioning_embedding_out_channels=(4, 8),
    ).save_pretrained(wide)
    assert "its cross_attention_dim is 16, and that of the prior 12" in sentence(str(wide))
