"""`python -m toybox.look_alikes`: what the point judge says of clouds that are toys and of such that only resemble them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toybox import splats
from toybox.captions import PAIRS
from toybox.point_judge import JUDGED_POINTS, judge_points
from toybox.splats import Splats, canonical
from toybox.train_judge import ROUND
from toybox.world import KINDS

Rng = torch.Generator
Make = Callable[[str, str, Rng], Splats]
ROUGH_JITTER = 0.03


def _uniform(rng: Rng) -> float:
    return float(torch.rand((), generator=rng))


def _other(kind: str, rng: Rng) -> str:
    others = [other for other in KINDS if other != kind]
    return others[int(torch.randint(len(others), (), generator=rng))]


def _moved(toy: Splats, move: Callable[[Tensor], Tensor]) -> Splats:
    return replace(toy, means=move(toy.means))


def _half(kind: str, color: str, rng: Rng) -> Splats:
    """What lies beyond the median along a random axis."""
    toy = canonical(kind, color)
    along = toy.means[:, int(torch.randint(3, (), generator=rng))]
    return splats.subset(toy, along >= along.median())


def _mixed(kind: str, color: str, rng: Rng) -> Splats:
    """As many points of one toy as of another, in one place."""
    parts = [canonical(kind, color), canonical(_other(kind, rng), color)]
    count = min(map(len, parts))
    return splats.joined(
        *(splats.subset(part, torch.randperm(len(part), generator=rng)[:count]) for part in parts)
    )


TOYS: dict[str, Make] = {
    "true surface": lambda kind, color, rng: canonical(kind, color),
    "astray by 0.03": lambda kind, color, rng: _moved(
        canonical(kind, color), lambda x: x + ROUGH_JITTER * torch.randn(x.shape, generator=rng)
    ),
    "worn": lambda kind, color, rng: splats.worn(canonical(kind, color), rng, _uniform(rng)),
}
IMPOSTORS: dict[str, Make] = {
    "blob": lambda kind, color, rng: splats.blob(canonical(kind, color), rng),
    "ring": lambda kind, color, rng: splats.ring(canonical(kind, color), rng),
    "turned by 90°": lambda kind, color, rng: _moved(
        canonical(kind, color), lambda x: torch.stack([-x[:, 1], x[:, 0], x[:, 2]], dim=1)
    ),
    "two-fronted": lambda kind, color, rng: splats.two_fronted(canonical(kind, color), axis=0),
    "half a toy": _half,
    "stitched of two": lambda kind, color, rng: splats.stitched(
        canonical(kind, color), canonical(_other(kind, rng), color), 0.3 * _uniform(rng) - 0.15
    ),
    "mixture of two": _mixed,
    "lump": lambda kind, color, rng: splats.lump(color, rng),
    "cloud": lambda kind, color, rng: splats.cloud(rng),
    "recolored": lambda kind, color, rng: splats.recolored(canonical(kind, color), rng),
}
SIDED = ("ring", "turned by 90°", "two-fronted")
"""Impostors only of kinds that are not round; a round toy remains itself."""


@dataclass(frozen=True)
class Shares:
    """Of clouds of one sort: named right in kind and colour, and refused, in kind or in colour."""

    count: int
    right: float
    refused: float


def shares(sort: str, pairs: Sequence[tuple[str, str]] = PAIRS, seed: int = 0) -> Shares:
    """Judge JUDGED_POINTS points, drawn at random, of a cloud of that sort for each of the pairs."""
    make = (TOYS | IMPOSTORS)[sort]
    rng = torch.Generator().manual_seed(seed)
    pairs = [pair for pair in pairs if sort not in SIDED or pair[0] not in ROUND]
    right = refused = 0
    for pair in pairs:
        cloud = make(*pair, rng)
        chosen = torch.randint(len(cloud), (JUDGED_POINTS,), generator=rng)
        verdict = judge_points(cloud.means[chosen].numpy(), cloud.colors[chosen].numpy())
        right += (verdict.kind, verdict.color) == pair
        refused += verdict.kind is None or verdict.color is None
    return Shares(len(pairs), right / len(pairs), refused / len(pairs))


def table() -> str:
    """Markdown: a line for each sort."""
    lines = ["| cloud | clouds | named right | refused |", "|---|---|---|---|"]
    for sort in (*TOYS, *IMPOSTORS):
        found = shares(sort)
        lines.append(f"| {sort} | {found.count} | {found.right:.0%} | {found.refused:.0%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
