"""MVDream: a U-Net of sets of views beside the single-view one that it is made from, and its weights in every layout."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

import config as configuration
from config.guidance_params import TOYBOX_MULTIVIEW
from guidance.camera_condition import camera_matrices
from guidance.condition import Condition
from guidance.prior import LatentPrior, PriorError, load_prior
from guidance.prior.multiview_unet import VIEWS, grown, predicted
from guidance.prior.mvdream_files import LEARNED, unet_settings
from tests.guidance.prior import tiny_mvdream as tiny
from utils.device import HOST

AZIMUTH, POLAR = torch.arange(VIEWS) * 90.0 + 20, torch.full((VIEWS,), 70.0)


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Flags for one model in each of its layouts."""
    root = tmp_path_factory.mktemp("mvdream")
    base = tiny.write_base(root / "base")
    folder = tiny.write_mvdream(base, root / "diffusers")
    checkpoint = tiny.write_checkpoint(folder, root / "mvdream.pt")
    community = tiny.write_community(folder, checkpoint, root / "community")
    return {
        "diffusers": ["--model_key", str(folder)],
        "checkpoint": ["--model_key", str(checkpoint), "--base_model_key", str(base)],
        "community": ["--model_key", str(community)],
    }


def load(flags: list[str]) -> LatentPrior:
    return load_prior(configuration.load([*flags, "--text", "a mug", "--fast", "false"]), HOST)


def condition(prior: LatentPrior, sets: int) -> Condition:
    cameras = camera_matrices(AZIMUTH, POLAR).expand(sets, VIEWS, 16)
    return prior.embed(["a mug"]).expand(sets).seen_by(cameras)


def latents(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_every_layout_gives_the_same_prior(layouts: dict[str, list[str]]) -> None:
    priors = {name: load(flags) for name, flags in layouts.items()}
    assert priors["diffusers"].latents == priors["community"].latents == (VIEWS, 4, 16, 16)
    # A checkpoint is taken to be of 256², whatever it was made from.
    assert priors["checkpoint"].latents == (VIEWS, 4, 32, 32)
    z, t = latents(2, VIEWS, 4, 16, 16), torch.tensor([300, 700])
    found = [prior.predict(z, t, condition(prior, 2)).eps for prior in priors.values()]
    assert found[0].shape == z.shape
    for one, other in pairwise(found):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    images = torch.rand(2 * VIEWS, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    encoded = priors["community"].encode(images)
    assert encoded.shape == z.shape
    assert priors["community"].decode(encoded).shape == images.shape
    # Another camera of one view changes the whole set, and no other set.
    turned = condition(priors["diffusers"], 2).parts["camera"].clone()
    turned[0, 1] = turned[0, 2]
    other = Condition({**condition(priors["diffusers"], 2).parts, "camera": turned})
    moved = (priors["diffusers"].predict(z, t, other).eps - found[0]).flatten(2).norm(dim=2)
    assert bool((moved[0] > 1e-4).all())
    assert float(moved[1].max()) == 0


def test_published_configuration_is_stable_diffusions() -> None:
    """MVDream's own settings, from its authors' sd-v2-base.yaml, are those of Stable Diffusion 2.1 in diffusers."""
    large = {"model_channels": 320, "channel_mult": [1, 2, 4, 4], "num_res_blocks": 2, "context_dim": 1024}
    attention = {"attention_resolutions": [4, 2, 1], "num_head_channels": 64}
    found = unet_settings({**tiny.AUTHORS, **large, **attention})
    assert found["block_out_channels"] == [320, 640, 1280, 1280]
    assert found["attention_head_dim"] == [5, 10, 20, 20]
    assert found["down_block_types"] == ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
    assert found["up_block_types"] == ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3


@torch.no_grad()
def test_without_other_views_and_cameras_it_predicts_what_the_single_view_one_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    single = tiny.single_view_unet()
    several, plain = grown(single), F.scaled_dot_product_attention
    z, text = latents(2, VIEWS, 4, 16, 16), latents(2, 7, 12)
    told, cameras = torch.tensor([10, 800]), camera_matrices(AZIMUTH, POLAR).expand(2, VIEWS, 16)
    expected = single(z.flatten(0, 1), told.repeat_interleave(VIEWS), text.repeat_interleave(VIEWS, 0)).sample
    masked = 0

    def attention(query: Tensor, key: Tensor, value: Tensor, **settings: object) -> Tensor:
        nonlocal masked
        mask = None
        if query.shape == key.shape:
            masked, each = masked + 1, query.shape[2] // VIEWS
            mask = torch.block_diag(*[torch.ones(each, each)] * VIEWS).bool()
        return plain(query, key, value, attn_mask=mask)

    joined = predicted(several, z, told, text, cameras).flatten(0, 1)
    assert (joined - expected).abs().max() > 1e-4
    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    torch.testing.assert_close(
        predicted(several, z, told, text, cameras).flatten(0, 1), expected, rtol=1e-5, atol=1e-6
    )
    assert masked == 4


@torch.no_grad()
def test_permuting_the_views_of_a_set_permutes_the_answer(layouts: dict[str, list[str]]) -> None:
    prior, order = load(layouts["diffusers"]), torch.tensor([2, 0, 3, 1])
    z, t, told = latents(2, VIEWS, 4, 16, 16), torch.tensor([300, 700]), condition(prior, 2)
    shuffled = Condition({**told.parts, "camera": told.parts["camera"][:, order]})
    torch.testing.assert_close(
        prior.predict(z[:, order], t, shuffled).eps,
        prior.predict(z, t, told).eps[:, order],
        rtol=1e-5,
        atol=1e-5,
    )


def test_gradient_of_a_set_is_autograds(layouts: dict[str, list[str]]) -> None:
    """Through blocks that are computed again, as SCTD goes where it is not approximate: into all views of a set, and no other."""
    prior = load(layouts["diffusers"])
    z, t, told = latents(2, VIEWS, 4, 16, 16).requires_grad_(), torch.tensor([300, 700]), condition(prior, 2)
    eps = prior.predict(z, t, told).eps
    [found] = torch.autograd.grad(eps[0, 1].square().sum(), z)
    prior.network.disable_gradient_checkpointing()
    prior.network.train()
    answer = predicted(prior.network, z, t, told.parts["text"], told.parts["camera"])
    [expected] = torch.autograd.grad(answer[0, 1].square().sum(), z)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert bool((found[0].flatten(1).norm(dim=1) > 0).all())
    assert float(found[1].abs().max()) == 0


def test_toybox_of_several_views_is_toybox_and_what_it_has_learned(
    layouts: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(layouts["checkpoint"][3], tmp_path / "toybox"))
    monkeypatch.setattr("toybox.weights_path", lambda: folder)
    flags = ["--model_key", TOYBOX_MULTIVIEW]
    with pytest.raises(PriorError, match=r"lacks .*: python -m toybox.lab.train multiview makes it\."):
        load(flags)
    prior = load(layouts["diffusers"])
    learned = {name: values for name, values in prior.network.named_parameters() if "class_embedding" in name}
    (folder / LEARNED).parent.mkdir()
    save_file(learned, folder / LEARNED)
    z, t = latents(1, VIEWS, 4, 16, 16), torch.tensor([300])
    twin = load(flags)
    assert torch.equal(
        twin.predict(z, t, condition(twin, 1)).eps, prior.predict(z, t, condition(prior, 1)).eps
    )
    save_file({"other": torch.zeros(1)}, folder / LEARNED)
    with pytest.raises(PriorError, match="1 weights that the U-Net has not, such as other"):
        load(flags)


@pytest.mark.parametrize(
    ("layout", "broken", "words"),
    [
        ("diffusers", "no text", "lacks text_encoder, tokenizer in"),
        (
            "diffusers",
            "other classes",
            "has {'projection_class_embeddings_input_dim': 12} in unet/config.json",
        ),
        ("community", "ImageDream", "is ImageDream, which is guided by a picture"),
        ("community", "no heads", "cannot be read as MVDream's ('num_head_channels')"),
        ("checkpoint", "half", "is no MVDream made from"),
        ("checkpoint", "no base", "is a single file, so base_model_key must say what it was made from"),
        ("checkpoint", "v", "predicts noise, but the scheduler of its base_model_key in"),
    ],
)
def test_what_is_missing_is_one_sentence(
    layout: str, broken: str, words: str, layouts: dict[str, list[str]], tmp_path: Path
) -> None:
    flags = list(layouts[layout])
    original = Path(flags[1])
    path = tmp_path / original.name
    (shutil.copytree if original.is_dir() else shutil.copy)(original, path)
    flags[1] = str(path)
    config = path / "unet" / "config.json"
    if broken == "no text":
        shutil.rmtree(path / "text_encoder")
        shutil.rmtree(path / "tokenizer")
    elif broken == "half":
        whole = torch.load(path, weights_only=True)
        torch.save({name: values for name, values in whole.items() if "output_blocks" not in name}, path)
    elif broken == "no base":
        flags = flags[:2]
    elif broken == "v":
        base = Path(shutil.copytree(flags[3], tmp_path / "base"))
        scheduler = base / "scheduler" / "scheduler_config.json"
        scheduler.write_text(
            json.dumps({**json.loads(scheduler.read_text()), "prediction_type": "v_prediction"})
        )
        flags[3] = str(base)
    else:
        changes = {
            "other classes": {"projection_class_embeddings_input_dim": 12},
            "ImageDream": {"ip_dim": 16},
            "no heads": {"num_head_channels": None},
        }[broken]
        settings = {**json.loads(config.read_text()), **changes}
        config.write_text(json.dumps({name: value for name, value in settings.items() if value is not None}))
    with pytest.raises(PriorError) as error:
        load(flags)
    sentence = str(error.value)
    assert words in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")
