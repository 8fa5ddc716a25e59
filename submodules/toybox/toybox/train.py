"""`python -m toybox.train`: from nothing to the shipped weights, run in the root of the project's checkout.

The prior (renders, VAE, latents, U-Net and text encoder), the judge and the tiny Point-E; an interrupted run continues
where it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch

import config as configuration
from config import Config
from toybox import splats, weights_path
from toybox.captions import PAIRS, TRAINING
from toybox.judge import save_judge
from toybox.models import build_scheduler, build_tokenizer, save_half
from toybox.renders import Renders, collect, toys
from toybox.train_judge import JudgeSets, impostors, train_judge, two_fronted_toys, worn_toys
from toybox.train_point_e import train_point_e
from toybox.train_unet import train_unet
from toybox.train_vae import train_vae

TOY_ROUNDS, TOY_VIEWS = 16, 48


def rendered(folder: Path, name: str, make: Callable[[torch.Generator], Renders], seed: int) -> Renders:
    """The set `name`, from disk if an earlier run finished it."""
    try:
        return Renders.load(folder / name)
    except FileNotFoundError:
        renders = make(torch.Generator().manual_seed(seed))
        renders.save(folder / name)
        return renders


def clutter(config: Config, rng: torch.Generator) -> Renders:
    """What the encoder meets on the way from noise to a toy."""
    makers = [(splats.cloud, -1)] * 40 + impostors() + worn_toys()
    return collect(config, makers, 32, rng, label="clutter")


def write_pipeline_index(folder: Path) -> None:
    index = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def train_prior(config: Config, work: Path, out: Path, seed: int) -> None:
    """The miniature Stable Diffusion: autoencoder, then U-Net and text encoder."""
    seen = rendered(
        work,
        "toys",
        lambda rng: collect(config, toys(TRAINING), TOY_VIEWS, rng, rounds=TOY_ROUNDS, label="toys"),
        seed,
    )
    messy = rendered(work, "clutter", lambda rng: clutter(config, rng), seed + 1)
    depth = rendered(
        work,
        "disparity",
        lambda rng: collect(config, toys(TRAINING), 32, rng, show_disparity=True, label="disparity"),
        seed + 2,
    )
    vae = train_vae([(seen, 0.65), (messy, 0.25), (depth, 0.1)], config.model, work, seed)
    save_half(vae, out / "vae")

    tokenizer = build_tokenizer()
    model = train_unet(vae, seen, config, tokenizer, work, seed)
    tokenizer.save_pretrained(out / "tokenizer")
    save_half(model.text_encoder, out / "text_encoder")
    save_half(model.unet, out / "unet")
    build_scheduler().save_pretrained(out / "scheduler")
    write_pipeline_index(out)


def train_judges(config: Config, work: Path, out: Path, seed: int) -> None:
    """The judge of pictures; that of point clouds has nothing to learn."""
    sets = JudgeSets(
        clean=rendered(
            work,
            "judge-clean",
            lambda rng: collect(config, toys(PAIRS), 64, rng, rounds=3, label="clean"),
            seed + 3,
        ),
        worn=rendered(
            work,
            "judge-worn",
            lambda rng: collect(config, worn_toys(), 24, rng, rounds=6, label="worn"),
            seed + 4,
        ),
        wrong=rendered(
            work,
            "judge-wrong",
            lambda rng: collect(config, impostors(), 12, rng, rounds=16, label="impostors"),
            seed + 5,
        ),
        two_fronted=rendered(
            work, "judge-two-fronted", lambda rng: two_fronted_toys(config, 256, rng), seed + 6
        ),
    )
    save_judge(train_judge(sets, config.model, work, seed), out / "judge" / "model.safetensors")


PARTS: dict[str, Callable[[Config, Path, Path, int], None]] = {
    "prior": train_prior,
    "judge": train_judges,
    "point-e": lambda config, work, out, seed: train_point_e(work, out / "point_e", seed),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m toybox.train", description=__doc__)
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
    print(f"Weights written to {arguments.out}; measure them with: python -m toybox.evaluate")


if __name__ == "__main__":
    main()
