"""What steers the miniature U-Net, a ControlNet and an image prompt: trained for a few steps, and as it is shipped."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import config as configuration
from config.guidance_params import TOYBOX, TOYBOX_DEPTH
from guidance.prior import StableDiffusionPrior
from guidance.prior.controlnet import find_controls
from guidance.prior.image_prompt import OfTokens
from guidance.prior.image_prompt_files import ImagePromptFiles
from scene.asset import load_asset
from toybox import weights_path
from toybox.captions import TRAINING, caption, colorless, random_caption
from toybox.judge import load_judge, named_right
from toybox.lab.assess import assess
from toybox.lab.evaluate_steered import by_depth, by_picture, by_words, silhouettes
from toybox.lab.models import save_half
from toybox.lab.renders import Renders, collect, guide_depth_of, toys
from toybox.lab.train import read_unet, trained_words
from toybox.lab.train_controlnet import train_controlnet
from toybox.lab.train_image_prompt import Fronts, save_adapter, train_image_encoder, train_image_prompt
from toybox.lab.training_views import TrainingViews
from toybox.lab.write_toys import recolored, write_toy
from toybox.splats import canonical
from toybox.world import COLORS, Name
from utils.device import HOST
from utils.media import write_png

CONFIG = configuration.load(["--text", "a toy"])
SEEN = TRAINING[::60]


def renders(**settings: object) -> Renders:
    return collect(CONFIG, toys(SEEN), 24, torch.Generator().manual_seed(0), **settings)  # type: ignore[arg-type]


def test_a_guide_shows_the_views_that_are_trained_on() -> None:
    colors, guides = renders(), renders(picture=guide_depth_of)
    assert (colors.azimuth == guides.azimuth).all()
    shape, near = colors.rgba[:, 3] > 200, guides.rgba[:, 0] > 0
    assert (near <= (colors.rgba[:, 3] > 100)).mean() > 0.999
    assert near[shape].mean() > 0.9


def test_captions_lose_their_colours_and_nothing_else() -> None:
    words = random.Random(0)
    for name in TRAINING:
        left = colorless(random_caption(name, words)).split()
        assert not {*left} & {*COLORS, "scarlet", "violet", "teal"}
        assert len(left) == len(colorless(" ".join(left)).split())
    assert colorless("a DSLR photo of a red mug on an orange desk") == "a DSLR photo of a mug on a desk"
    assert colorless("a green android") == "an android"


def few_views(tmp_path: Path, prior: StableDiffusionPrior, colors: Renders) -> TrainingViews:
    return TrainingViews.of(prior.vae, trained_words(weights_path()), [colors], CONFIG, tmp_path, 0)


def test_a_trained_controlnet_adds_what_the_prior_then_adds(tmp_path: Path) -> None:
    prior = StableDiffusionPrior.load("toybox", HOST)
    guides = renders(picture=guide_depth_of)
    views = few_views(tmp_path, prior, renders())
    net = train_controlnet(read_unet(weights_path()), views, guides, tmp_path, 0, steps=2)
    for last in (*net.controlnet_down_blocks, net.controlnet_mid_block):
        assert float(last.weight.detach().abs().max()) > 0, "it has moved from zero"
        nn.init.normal_(last.weight, std=0.2)
    save_half(net, tmp_path / "net")
    controls = find_controls([str(tmp_path / "net")], (1.0,), (0.0, 1.0))
    steered = StableDiffusionPrior.load("toybox", HOST, controls=controls)
    z, t, text = views.latents[:2], torch.tensor([300, 700]), prior.embed(["a red mug", ""])
    pictures = guides.images(range(2), torch.zeros(2, 3))  # type: ignore[arg-type]
    with torch.no_grad():
        down, middle = net(z, t, text.parts["text"], pictures, return_dict=False)
        wanted = prior.unet(
            z, t, text.parts["text"], down_block_additional_residuals=down, mid_block_additional_residual=middle
        ).sample  # fmt: skip
        found = steered.predict(z, t, text.shown(pictures[:, None])).eps
        plain = prior.predict(z, t, text).eps
    assert float((found - wanted).norm() / (wanted - plain).norm()) < 0.03


def test_a_trained_adapter_is_read_as_diffusers_applies_it(tmp_path: Path) -> None:
    prior, colors = StableDiffusionPrior.load("toybox", HOST), renders()
    meanings = torch.zeros(len(TRAINING) * 4, 96)
    encoder = train_image_encoder(colors, meanings, CONFIG.model, tmp_path, 0, steps=2)
    unet = read_unet(weights_path())
    modules = train_image_prompt(unet, encoder, few_views(tmp_path, prior, colors), colors, tmp_path, 0, steps=2)  # fmt: skip
    save_half(encoder, tmp_path / "image_encoder")
    save_adapter(modules, tmp_path / "ip_adapter.safetensors")
    picture = tmp_path / "front.png"
    shown = colors.images(range(1), torch.ones(1, 3))  # type: ignore[arg-type]
    write_png(picture, shown[0])
    files = ImagePromptFiles("adapter", picture, tmp_path / "ip_adapter.safetensors", tmp_path / "image_encoder")  # fmt: skip
    prompted = StableDiffusionPrior.load("toybox", HOST, image_prompt=files)
    text, tokens = prior.embed(["a mug"]).parts["text"], prompted.image_tokens
    assert tokens is not None
    z, t = torch.randn(1, *prior.latents), torch.tensor([400])
    with torch.no_grad():
        embeds = encoder(_as_clip(shown)).image_embeds
        wanted = unet(z, t, text, added_cond_kwargs={"image_embeds": [embeds[:, None]]}).sample
        found = prompted.answer(z, t, text, torch.cat([tokens[0], torch.ones(1, 4, 1)], dim=-1))
        plain = prior.answer(z, t, text)
    assert float((found - wanted).norm() / (wanted - plain).norm()) < 0.03
    assert sum(isinstance(each, OfTokens) for each in prompted.unet.modules()) == 2 * (len(modules) - 1)


def _as_clip(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]))  # fmt: skip
    return (images - mean) / std


def test_a_toy_in_a_file_is_the_true_toy(tmp_path: Path) -> None:
    name = Name("car", "blue")
    for each in (name, recolored(name)):
        write_toy(canonical(each), tmp_path / "toy.ply")
        found = load_asset(tmp_path / "toy.ply")
        assert assess(found, caption(each), CONFIG).psnr > 60
        assert assess(found, caption(name), CONFIG).chamfer < 0.01, "a colour is no shape"
    assert recolored(name).kind == "car"
    assert recolored(name).color != "blue"


def test_a_picture_is_one_of_the_front_of_the_same_toy() -> None:
    colors, rng = renders(), torch.Generator().manual_seed(0)
    fronts = Fronts(colors)
    asked = torch.from_numpy(colors.name).long().repeat(20)
    asked = asked[torch.isin(asked, fronts.name)]
    found = fronts.of(asked, rng)
    assert torch.equal(fronts.name[found], asked)
    assert (abs(colors.azimuth[fronts.rows[found]]) <= 50).all()
    assert torch.equal(fronts.name, torch.from_numpy(colors.name[fronts.rows]).long())
    assert set(found.tolist()) == set(range(len(fronts.rows))), "each of them is drawn"


@pytest.mark.slow
def test_the_shipped_controlnet_draws_the_shape_that_it_is_shown() -> None:
    controls = find_controls([TOYBOX_DEPTH], (1.0,), (0.0, 1.0))
    plain, steered = (StableDiffusionPrior.load(TOYBOX, HOST, controls=each) for each in (None, controls))
    toys = [Name("mug", "purple"), Name("table", "yellow")]
    overlaps = [
        torch.stack([silhouettes(way(name, 0), name).mean() for name in toys])
        for way in (partial(by_words, plain, caption), partial(by_depth, steered))
    ]
    assert bool((overlaps[1] > overlaps[0] + 0.05).all())


@pytest.mark.slow
def test_the_shipped_image_prompt_gives_the_colour_that_the_words_leave_out(tmp_path: Path) -> None:
    judge, right = load_judge(), []
    for name in (Name("mug", "purple"), Name("car", "blue"), Name("donut", "turquoise")):
        images = by_picture(tmp_path, lambda name: colorless(caption(name)), name, 0)
        right.append(named_right(judge.judge(images), [name] * len(images)))
    assert float(torch.cat(right).float().mean()) >= 0.6
