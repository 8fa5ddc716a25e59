"""`python -m toybox.lab.train`: from nothing to the shipped weights, run in the root of the project's checkout.

Text encoder, autoencoder, U-Net, the flow's transformer, what steers the U-Net, the judge and the tiny Point-E, each a part that
can be trained alone once those before it are there; an interrupted run continues where it was.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer, Qwen3Model

import config as configuration
from config import Config
from guidance.prior.multiview_unet import VIEWS
from toybox import splats, weights_path
from toybox.captions import ALONE, NAMES, STACKED, TRAINING, caption, colorless, random_caption
from toybox.judge import save_judge
from toybox.lab.encoders import half_made_toys
from toybox.lab.models import (
    build_flow_scheduler,
    build_flow_text_encoder,
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    save_half,
)
from toybox.lab.renders import Picture, Renders, collect, colors_of, disparity_of, guide_depth_of, toys
from toybox.lab.train_controlnet import train_controlnet
from toybox.lab.train_flow import train_flow
from toybox.lab.train_image_prompt import save_adapter, train_image_encoder, train_image_prompt
from toybox.lab.train_judge import JudgeSets, impostors, train_judge, two_fronted_toys, worn_toys
from toybox.lab.train_multiview import save_learned, train_multiview_unet
from toybox.lab.train_point_e import train_point_e
from toybox.lab.train_small_encoder import train_small_encoder
from toybox.lab.train_text import tokens, train_text
from toybox.lab.train_unet import train_unet
from toybox.lab.train_vae import train_vae
from toybox.lab.training_views import Embed, TrainingViews
from toybox.world import Name

TOY_ROUNDS, TOY_VIEWS, STACKED_VIEWS, DISPARITY_VIEWS = 4, 48, 32, 3
"""Rounds and views of every toy in training."""
RING_VIEWS = 64
"""Views of every toy in rings of four."""
COLORLESS_SHARE = 0.75
"""Share of the captions, beside pictures, that name no colour."""
VAE_SHARES = (0.5, 0.15, 0.1, 0.25)
"""Shares of a batch: toys alone, on tables, disparity images, clutter."""


def rendered(folder: Path, name: str, make: Callable[[torch.Generator], Renders], seed: int) -> Renders:
    """The set `name`, from disk if an earlier run finished it."""
    try:
        return Renders.load(folder / name)
    except FileNotFoundError:
        renders = make(torch.Generator().manual_seed(seed))
        renders.save(folder / name)
        return renders


def clutter(config: Config, rng: torch.Generator) -> Renders:
    """Clutter that the encoder meets on the way from noise to a toy."""
    makers = [(splats.cloud, -1)] * 240 + impostors() + worn_toys()
    return collect(config, makers, 4, rng, label="clutter")


PIPELINE = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": [None, None],
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
FLOW_PIPELINE = {
    "_class_name": "ZImagePipeline",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "Qwen3Model"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "transformer": ["diffusers", "ZImageTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
"""Contents of model_index.json. The flow's autoencoder is the U-Net's, in the folder above."""


def write_pipeline_index(folder: Path, index: Mapping[str, str | Sequence[str | None]]) -> None:
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def train_words(config: Config, work: Path, out: Path, seed: int) -> None:
    """Train the tokenizer and the text encoder."""
    tokenizer = build_tokenizer()
    trained = train_text(
        build_text_encoder, lambda encoder, ids: encoder(ids).last_hidden_state, tokenizer, work, seed
    )
    save_half(trained, out / "text_encoder")
    tokenizer.save_pretrained(out / "tokenizer")


def colored_toys(
    config: Config, work: Path, seed: int, picture: Picture = colors_of, mark: str = ""
) -> list[Renders]:
    """Toys alone, and toys on tables; `mark` begins the names of pictures that show something else than their colours."""
    alone, stacked = (
        [name for name in TRAINING if (name.on is not None) == table] for table in (False, True)
    )
    sets: dict[str, Callable[[torch.Generator], Renders]] = {
        "toys": lambda rng: collect(
            config, toys(alone), TOY_VIEWS, rng, rounds=TOY_ROUNDS, picture=picture, label="toys"
        ),
        "stacked": lambda rng: collect(
            config, toys(stacked), STACKED_VIEWS, rng, picture=picture, label="toys on tables"
        ),
    }
    return [
        rendered(work, mark + name, make, seed + index) for index, (name, make) in enumerate(sets.items())
    ]


def seen_toys(config: Config, work: Path, seed: int) -> list[Renders]:
    """Toys that autoencoder and U-Net see alike: toys alone, toys on tables, and disparity images of both."""

    def disparity(rng: torch.Generator) -> Renders:
        return collect(config, toys(TRAINING), DISPARITY_VIEWS, rng, picture=disparity_of, label="disparity")

    return [*colored_toys(config, work, seed), rendered(work, "disparity", disparity, seed + 2)]


def train_autoencoder(config: Config, work: Path, out: Path, seed: int) -> None:
    messy = rendered(work, "clutter", lambda rng: clutter(config, rng), seed + 3)
    sets = [*seen_toys(config, work, seed), messy]
    save_half(train_vae(list(zip(sets, VAE_SHARES)), config.model, work, seed), out / "vae")


def trained_words(out: Path) -> Embed:
    """Read the text encoder in `out`."""
    tokenizer = CLIPTokenizer.from_pretrained(out / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(out / "text_encoder", dtype=torch.float32)

    @torch.no_grad()
    def embed(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        embedded = encoder(tokens(tokenizer, [*texts])).last_hidden_state
        return embedded, torch.full((len(texts),), embedded.shape[1])

    return embed


def unet_views(
    config: Config,
    work: Path,
    out: Path,
    seed: int,
    phrase: Callable[[Name, random.Random], str] = random_caption,
) -> TrainingViews:
    """Make what the U-Net, and whatever steers it, is trained on, by the text encoder and the autoencoder in `out`."""
    vae = AutoencoderKL.from_pretrained(out / "vae", torch_dtype=torch.float32)
    sets = seen_toys(config, work, seed)
    return TrainingViews.of(vae, trained_words(out), sets, config, work, seed, phrase)


def read_unet(out: Path) -> UNet2DConditionModel:
    unet: UNet2DConditionModel = UNet2DConditionModel.from_pretrained(out / "unet", torch_dtype=torch.float32)
    return unet.eval()


def train_denoiser(config: Config, work: Path, out: Path, seed: int) -> None:
    """Train the U-Net, whose text encoder and autoencoder are read from `out`; with it the prior is whole."""
    save_half(train_unet(unet_views(config, work, out, seed), work, seed), out / "unet")
    build_scheduler().save_pretrained(out / "scheduler")
    write_pipeline_index(out, PIPELINE)


def train_flow_prior(config: Config, work: Path, out: Path, seed: int) -> None:
    """Train the flow and its text encoder, whose tokenizer and autoencoder are read from `out`."""
    vae = AutoencoderKL.from_pretrained(out / "vae", torch_dtype=torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(out / "tokenizer")
    tokenizer.chat_template = "{{ messages[0]['content'] }}"

    def hidden(encoder: Qwen3Model, ids: Tensor) -> Tensor:
        return encoder(ids, output_hidden_states=True).hidden_states[-2]

    encoder = train_text(build_flow_text_encoder, hidden, tokenizer, work, seed, "flow-text").half().float()

    def embed(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        lengths = [len(ids) for ids in tokenizer([*texts]).input_ids]
        return hidden(encoder, tokens(tokenizer, [*texts])), torch.tensor(lengths)

    views = TrainingViews.of(vae, embed, seen_toys(config, work, seed), config, work, seed)
    folder = out / "flow"
    save_half(train_flow(views, work, seed), folder / "transformer")
    save_half(encoder, folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    build_flow_scheduler().save_pretrained(folder / "scheduler")
    write_pipeline_index(folder, FLOW_PIPELINE)


def train_depth(config: Config, work: Path, out: Path, seed: int) -> None:
    """Train the ControlNet of depth, beside the U-Net in `out`."""
    guides = Renders.joined(*colored_toys(config, work, seed, guide_depth_of, "depth-"))
    views = unet_views(config, work, out, seed)
    save_half(train_controlnet(read_unet(out), views, guides, work, seed), out / "controlnet_depth")


def told_in_part(name: Name, rng: random.Random) -> str:
    """Random phrase for a toy that mostly leaves its colours to a picture."""
    text = random_caption(name, rng)
    return colorless(text) if rng.random() < COLORLESS_SHARE else text


def train_picture(config: Config, work: Path, out: Path, seed: int) -> None:
    """Train the image prompt: an image encoder, and an adapter of the U-Net in `out`."""
    renders = Renders.joined(*colored_toys(config, work, seed))
    meanings = trained_words(out)([caption(name) for name in NAMES])[0][:, -1]
    encoder = train_image_encoder(renders, meanings, config.model, work, seed)
    folder = out / "image_prompt"
    save_half(encoder, folder / "image_encoder")
    views = unet_views(config, work, out, seed, told_in_part)
    adapter = train_image_prompt(read_unet(out), encoder, views, renders, work, seed)
    save_adapter(adapter, folder / "ip_adapter.safetensors")


def train_multiview(config: Config, work: Path, out: Path, seed: int) -> None:
    """Train the multi-view U-Net, which begins as the one in `out`."""
    vae = AutoencoderKL.from_pretrained(out / "vae", torch_dtype=torch.float32)

    def rings(rng: torch.Generator) -> Renders:
        return collect(config, toys(TRAINING), RING_VIEWS, rng, label="rings", views_per_set=VIEWS)

    renders = [rendered(work, "rings", rings, seed + 13)]
    unet = train_multiview_unet(vae, trained_words(out), read_unet(out), renders, config, work, seed)
    save_learned(unet, out / "multiview" / "learned.safetensors")


def train_encoder(config: Config, work: Path, out: Path, seed: int) -> None:
    """Train the small encoder, whose teacher is the autoencoder in `out`."""
    alone = [name for name in TRAINING if name.on is None]
    sets: dict[str, Callable[[torch.Generator], Renders]] = {
        "small-toys": lambda rng: collect(config, toys(alone), 3, rng, label="toys alone"),
        "small-all": lambda rng: collect(config, toys(TRAINING), 1, rng, label="toys"),
        "small-half-made": lambda rng: collect(config, half_made_toys(TRAINING), 2, rng, label="half-made"),
        "small-clouds": lambda rng: collect(config, [(splats.cloud, -1)] * 120, 2, rng, label="clouds"),
        "small-disparity": lambda rng: collect(
            config, toys(TRAINING[::4]), 1, rng, picture=disparity_of, label="disparity"
        ),
    }
    renders = [
        rendered(work, name, make, seed + 8 + index) for index, (name, make) in enumerate(sets.items())
    ]
    vae = AutoencoderKL.from_pretrained(out / "vae", torch_dtype=torch.float32).eval()
    save_half(train_small_encoder(vae, renders, config.model, work, seed), out / "small_encoder")


def train_judges(config: Config, work: Path, out: Path, seed: int) -> None:
    """Train the judge of pictures; that of point clouds has nothing to learn."""

    def clean(rng: torch.Generator) -> Renders:
        return Renders.joined(
            collect(config, toys(ALONE), 64, rng, label="clean"),
            collect(config, toys(STACKED), 20, rng, label="clean, on tables"),
        )

    def worn(rng: torch.Generator) -> Renders:
        return collect(config, worn_toys(), 16, rng, label="worn")

    def wrong(rng: torch.Generator) -> Renders:
        return collect(config, impostors(), 10, rng, rounds=2, label="impostors")

    sets = JudgeSets(
        clean=rendered(work, "judge-clean", clean, seed + 4),
        worn=rendered(work, "judge-worn", worn, seed + 5),
        wrong=rendered(work, "judge-wrong", wrong, seed + 6),
        two_fronted=rendered(
            work, "judge-two-fronted", lambda rng: two_fronted_toys(config, 96, rng), seed + 7
        ),
    )
    save_judge(train_judge(sets, config.model, work, seed), out / "judge" / "model.safetensors")


PARTS: dict[str, Callable[[Config, Path, Path, int], None]] = {
    "words": train_words,
    "vae": train_autoencoder,
    "unet": train_denoiser,
    "flow": train_flow_prior,
    "multiview": train_multiview,
    "depth": train_depth,
    "image-prompt": train_picture,
    "small-encoder": train_encoder,
    "judge": train_judges,
    "point-e": lambda config, work, out, seed: train_point_e(work, out / "point_e", seed),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m toybox.lab.train", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument(
        "--work", type=Path, default=Path("outputs/toybox-training"), help="renders, checkpoints, logs"
    )
    parser.add_argument("--out", type=Path, default=weights_path(), help="where the weights go")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    unknown = [part for part in arguments.parts if part not in PARTS]
    if unknown:
        parser.error(f"parts are {', '.join(PARTS)}, but {unknown[0]!r} was given")
    config = configuration.load([])
    for part in arguments.parts or PARTS:
        PARTS[part](config, arguments.work, arguments.out, arguments.seed)
    print(f"Weights written to {arguments.out}; measure them with: python -m toybox.lab.evaluate")


if __name__ == "__main__":
    main()
