"""The small encoder beside the autoencoder, on half-made assets of toys that training never saw."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import guidance
from config import Config
from guidance.prior import LatentPrior
from toybox import splats
from toybox.captions import NAMES, caption
from toybox.lab.renders import Maker, backgrounds, collect
from toybox.lab.train_small_encoder import pulled_back
from toybox.world import Name
from utils.rng import Draws

ENCODERS = ("vae", "small_encoder")


def half_made_toys(names: Sequence[Name]) -> list[tuple[Maker, int]]:
    """Makers of assets on their way to these toys."""

    def make(name: Name) -> Maker:
        return lambda rng: splats.half_made(splats.canonical(name), rng)

    return [(make(name), NAMES.index(name)) for name in names]


@dataclass(frozen=True)
class Likeness:
    """How near the small encoder is to the autoencoder.

    error: root mean square of the latents' difference, as a share of the latents' own; spread: the same as a share of
    their standard deviation; cosine: between the two gradients in pixels, mean over views; cost: processor time of
    encoding and of its way back, as a share of the autoencoder's.
    """

    error: float
    spread: float
    cosine: float
    cost: float


def _cases(
    prior: LatentPrior, config: Config, names: Sequence[Name], views: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images [V, 3, H, W] of a half-made asset, and the guidance's gradient in the latents, name by name."""
    rng, draws = torch.Generator().manual_seed(seed), Draws(seed)
    guide = guidance.build(config, prior)
    for name in names:
        renders = collect(config, half_made_toys([name]), views, rng, label=caption(name))
        images = renders.images(np.arange(views), backgrounds(config.model, views, rng))
        told = config.guidance.model_copy(update={"text": caption(name)})
        prompts = guidance.embed_prompts(config.model_copy(update={"guidance": told}), prior)
        conditioning = prompts.at(torch.from_numpy(renders.azimuth), torch.from_numpy(renders.polar))
        step = int(torch.randint(config.optimization.iterations, (), generator=rng))
        guided = guide(images, conditioning, step, draws.of_views("timesteps", step, range(views)))
        yield images, guided.gradient


def compare(
    prior: LatentPrior, config: Config, names: Sequence[Name], views: int = 4, seed: int = 99
) -> Likeness:
    """Compare the two encoders of `prior` on `views` of each toy's half-made asset, by the gradients of `config`'s method."""
    found: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in ENCODERS}
    seconds = dict.fromkeys(ENCODERS, 0.0)
    for images, gradient in list(_cases(prior, config, names, views, seed)):
        for name in ENCODERS:
            prior.encodes_with = name
            leaf = images.clone().requires_grad_()
            began = time.process_time()
            z = prior.encode(leaf)
            pulled = pulled_back(z, leaf, gradient)
            seconds[name] += time.process_time() - began
            found[name].append((z.detach(), pulled))
    prior.encodes_with = "vae"
    (wanted, true), (z, pulled) = (map(torch.cat, zip(*found[name])) for name in ENCODERS)
    off = (z - wanted).square().mean().sqrt()
    return Likeness(
        error=float(off / wanted.square().mean().sqrt()),
        spread=float(off / wanted.std()),
        cosine=float(F.cosine_similarity(pulled.flatten(1), true.flatten(1)).mean()),
        cost=seconds["small_encoder"] / seconds["vae"],
    )
