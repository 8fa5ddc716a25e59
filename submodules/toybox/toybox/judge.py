"""Judge of images, a small CLIP for toys, trained on renders only: which toy is it, seen from where, or is it
none?
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from toybox import weights_path
from toybox.captions import NAMES
from toybox.world import COLORS, KINDS, Name

INPUT_SIZE = 64
WIDTHS = (24, 48, 96, 128)
EMBEDDING = 64


class ImageTower(nn.Module):
    """Network from images [B, 3, H, W] in [0, 1] to features [B, 128]: strided convolutions over 64² pixels
    with normalised groups.
    """

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels = 3
        for width in WIDTHS:
            blocks += [nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.GroupNorm(8, width), nn.SiLU(),
                       nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width), nn.SiLU()]  # fmt: skip
            channels = width
        self.blocks = nn.Sequential(*blocks)
        self.project = nn.Sequential(
            nn.Flatten(), nn.Linear(channels * (INPUT_SIZE // 16) ** 2, 128), nn.SiLU()
        )

    def forward(self, images: Tensor) -> Tensor:
        small = F.interpolate(images, size=(INPUT_SIZE, INPUT_SIZE), mode="area")
        return self.project(self.blocks(small * 2 - 1))


@dataclass(frozen=True)
class Verdict:
    """Verdict on B images: name [B] (index into NAMES, -1 where no toy is seen), azimuth [B] in degrees
    (meaningless there).
    """

    name: Tensor
    azimuth: Tensor


def named_right(verdict: Verdict, names: Sequence[Name]) -> Tensor:
    """Mask [B] of the images whose kind and colours are all as in `names`, one for each image."""
    return verdict.name == torch.tensor([NAMES.index(name) for name in names])


class Judge(nn.Module):
    """Image and text embeddings whose cosine scores an image against every toy's caption; "none of these" is a
    learned embedding of its own. A second head regresses the azimuth as (cos, sin)."""

    def __init__(self) -> None:
        super().__init__()
        self.image = ImageTower()
        self.to_embedding = nn.Linear(128, EMBEDDING)
        self.to_azimuth = nn.Linear(128, 2)
        kinds, colors = list(KINDS), list(COLORS)
        tables = [None, *colors]
        self.words = nn.EmbeddingBag(len(kinds) + len(colors) + len(tables), EMBEDDING, mode="sum")
        self.text = nn.Sequential(nn.Linear(EMBEDDING, 128), nn.SiLU(), nn.Linear(128, EMBEDDING))
        self.none = nn.Parameter(torch.randn(1, EMBEDDING))
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        names = [
            (kinds.index(k), len(kinds) + colors.index(c), len(kinds) + len(colors) + tables.index(on))
            for k, c, on in NAMES
        ]
        self.names: Tensor
        self.register_buffer("names", torch.tensor(names), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, len(NAMES) + 1], the last for "none of these", and (cos, sin) of the azimuth [B, 2]."""
        features = self.image(images)
        captions = torch.cat([self.text(self.words(self.names)), self.none])
        cosine = F.normalize(self.to_embedding(features), dim=-1) @ F.normalize(captions, dim=-1).T
        return self.log_scale.exp() * cosine, self.to_azimuth(features)

    @torch.no_grad()
    def judge(self, images: Tensor) -> Verdict:
        """Judge images [B, 3, H, W] in [0, 1]."""
        logits, direction = self(images)
        best = logits.argmax(dim=-1)
        return Verdict(
            name=best.masked_fill(best == len(NAMES), -1),
            azimuth=torch.rad2deg(torch.atan2(direction[:, 1], direction[:, 0])),
        )

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Features [B, 128] of images, in the space of the Fréchet distance."""
        return self.image(images)


def save_judge(judge: Judge, path: Path) -> None:
    """Write the judge as fp16 safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.half().contiguous() for name, value in judge.state_dict().items()}, path)


def load_judge(path: Path | None = None) -> Judge:
    """The shipped judge, or the one in `path`."""
    judge = Judge()
    judge.load_state_dict(load_file(path or weights_path() / "judge" / "model.safetensors"))
    return judge.eval().requires_grad_(False)
