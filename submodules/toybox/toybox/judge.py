"""A small CLIP for toys, trained on renders only: which toy is it, seen from where, or is it none?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from toybox import weights_path
from toybox.captions import PAIRS
from toybox.world import COLORS, KINDS

INPUT_SIZE = 64
WIDTHS = (24, 48, 96, 128)
EMBEDDING = 64


class ImageTower(nn.Module):
    """[B, 3, H, W] in [0, 1] → features [B, 128]: strided convolutions over 64² pixels with normalised groups."""

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
    """Of B images: kind [B] and color [B] (indices into KINDS and COLORS, -1 where none is seen), azimuth [B] in
    degrees (meaningless where kind is -1)."""

    kind: Tensor
    color: Tensor
    azimuth: Tensor


def named_right(verdict: Verdict, pairs: list[tuple[str, str]]) -> Tensor:
    """[B] bool: kind and colour both as in `pairs`, one for each image."""
    kinds = torch.tensor([list(KINDS).index(kind) for kind, _ in pairs])
    colors = torch.tensor([list(COLORS).index(color) for _, color in pairs])
    return (verdict.kind == kinds) & (verdict.color == colors)


class Judge(nn.Module):
    """Image and text embeddings whose cosine scores an image against every toy's caption; "none of these" is a
    learned embedding of its own. A second head regresses the azimuth as (cos, sin)."""

    def __init__(self) -> None:
        super().__init__()
        self.image = ImageTower()
        self.to_embedding = nn.Linear(128, EMBEDDING)
        self.to_azimuth = nn.Linear(128, 2)
        self.words = nn.EmbeddingBag(len(KINDS) + len(COLORS), EMBEDDING, mode="sum")
        self.text = nn.Sequential(nn.Linear(EMBEDDING, 128), nn.SiLU(), nn.Linear(128, EMBEDDING))
        self.none = nn.Parameter(torch.randn(1, EMBEDDING))
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        kinds, colors = list(KINDS), list(COLORS)
        pairs = torch.tensor([[kinds.index(k), len(kinds) + colors.index(c)] for k, c in PAIRS])
        self.pairs: Tensor
        self.register_buffer("pairs", pairs, persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, len(PAIRS) + 1], the last for "none of these", and (cos, sin) of the azimuth [B, 2]."""
        features = self.image(images)
        captions = torch.cat([self.text(self.words(self.pairs)), self.none])
        cosine = F.normalize(self.to_embedding(features), dim=-1) @ F.normalize(captions, dim=-1).T
        return self.log_scale.exp() * cosine, self.to_azimuth(features)

    @torch.no_grad()
    def judge(self, images: Tensor) -> Verdict:
        """images [B, 3, H, W] in [0, 1]."""
        logits, direction = self(images)
        best = logits.argmax(dim=-1)
        none = best == len(PAIRS)
        pairs = self.pairs[best.clamp(max=len(PAIRS) - 1)]
        azimuth = torch.rad2deg(torch.atan2(direction[:, 1], direction[:, 0]))
        return Verdict(
            kind=pairs[:, 0].masked_fill(none, -1),
            color=(pairs[:, 1] - len(KINDS)).masked_fill(none, -1),
            azimuth=azimuth,
        )

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """[B, 128], the space of the Fréchet distance."""
        return self.image(images)


def save_judge(judge: Judge, path: Path) -> None:
    """fp16 safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.half().contiguous() for name, value in judge.state_dict().items()}, path)


def load_judge(path: Path | None = None) -> Judge:
    """The shipped judge, or the one in `path`."""
    judge = Judge()
    judge.load_state_dict(load_file(path or weights_path() / "judge" / "model.safetensors"))
    return judge.eval().requires_grad_(False)
