"""Train the judge: clean and worn toys are themselves; everything that only resembles one is "none of these"."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from config import Config
from config.model_params import ModelParams
from toybox import splats
from toybox.captions import NAMES
from toybox.judge import Judge
from toybox.lab.fit import Schedule, fit
from toybox.lab.renders import Maker, Renders, collect
from toybox.world import COLORS, KINDS, ROUND, Name

STEPS, BATCH = 5000, 64
SHARES = (0.34, 0.26, 0.40)
"""Shares of a batch: clean toys, worn toys, impostors."""


def worn_toys() -> list[tuple[Maker, int]]:
    def make(name: Name) -> Maker:
        def maker(rng: torch.Generator) -> splats.Splats:
            return splats.worn(splats.canonical(name), rng, float(torch.rand((), generator=rng)))

        return maker

    return [(make(name), index) for index, name in enumerate(NAMES)]


def impostors() -> list[tuple[Maker, int]]:
    """Makers of impostors, one for every name; each draws the way in which its object is wrong."""

    def make(name: Name) -> Maker:
        def maker(rng: torch.Generator) -> splats.Splats:
            true = splats.canonical(name)
            way = int(torch.randint(5, (), generator=rng))
            if way == 0:
                return splats.blob(true, rng)
            if way == 1 and name.kind not in ROUND:
                return splats.ring(true, rng)
            if way == 2:
                others = [kind for kind in KINDS if kind != name.kind]
                other = Name(others[int(torch.randint(len(others), (), generator=rng))], name.color)
                return splats.stitched(
                    true, splats.canonical(other), 0.3 * float(torch.rand((), generator=rng)) - 0.15
                )
            if way == 3:
                return splats.recolored(true, rng)
            return splats.lump(name.color, rng)

        return maker

    return [(make(name), -1) for name in NAMES]


def two_fronted_toys(config: Config, views: int, rng: torch.Generator) -> Renders:
    """Renders of toys with fronts on both sides, kept only where a person sees it: from the side, for toys
    that have one.
    """
    names = [Name(kind, color) for kind in ("car", "duck", "chair", "robot", "boat") for color in COLORS]
    makers: list[tuple[Maker, int]] = [
        ((lambda rng, n=name: splats.two_fronted(splats.canonical(n), axis=0)), -1)  # type: ignore[misc]
        for name in names
    ]
    seen = collect(config, makers, views, rng, label="two-fronted")
    from_side = np.abs(np.abs(seen.azimuth) - 90) < 35
    return Renders(*(array[from_side] for array in vars(seen).values()))


@dataclass(frozen=True)
class JudgeSets:
    clean: Renders
    worn: Renders
    wrong: Renders
    two_fronted: Renders


def blurred(images: Tensor, rng: torch.Generator) -> Tensor:
    """The images, half of the time at a lower resolution: distilled assets are never crisp."""
    if torch.rand((), generator=rng) < 0.5:
        return images
    size = int(torch.randint(44, 100, (), generator=rng))
    small = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
    return F.interpolate(small, size=images.shape[-2:], mode="bilinear")


def train_judge(sets: JudgeSets, model_params: ModelParams, folder: Path, seed: int) -> Judge:
    torch.manual_seed(seed)
    judge = Judge()
    counts = [int(share * BATCH) for share in SHARES[:2]]
    two_fronted = BATCH // 16
    counts += [BATCH - sum(counts) - two_fronted, two_fronted]
    groups = list(zip((sets.clean, sets.worn, sets.wrong, sets.two_fronted), counts))

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        images, names, azimuths = [], [], []
        for renders, count in groups:
            index, views = renders.draw(count, model_params, rng)
            images.append(views)
            names.append(torch.from_numpy(renders.name[index]).long())
            azimuths.append(torch.from_numpy(renders.azimuth[index]))
        name, azimuth = torch.cat(names), torch.deg2rad(torch.cat(azimuths))
        logits, direction = judge(blurred(torch.cat(images), rng))
        target = torch.where(name < 0, len(NAMES), name)
        real = (name >= 0).float()[:, None]
        view = (direction - torch.stack([azimuth.cos(), azimuth.sin()], dim=-1)).square()
        score = F.cross_entropy(logits, target, label_smoothing=0.02)
        accuracy = (logits.argmax(dim=-1) == target).float().mean()
        return score + 0.5 * (real * view).sum() / real.sum(), {"accuracy": accuracy}

    fit("judge", judge, loss, Schedule(STEPS, lr=2e-3, ema=0.995), folder, seed)
    return judge
