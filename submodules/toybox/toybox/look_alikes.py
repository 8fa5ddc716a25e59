"""`python -m toybox.look_alikes`: how the point judge names clouds that are toys and such that only resemble them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toybox import splats
from toybox.captions import ALONE, STACKED
from toybox.point_judge import JUDGED_POINTS, judge_points
from toybox.splats import Splats, canonical
from toybox.world import FACELESS, KINDS, ROUND, Name

Rng = torch.Generator
Make = Callable[[Name, Rng], Splats]
ROUGH_JITTER = 0.03
STACKED_EVERY = 7
"""Step through the toys on tables: every so many-th is judged."""


def _uniform(rng: Rng) -> float:
    return float(torch.rand((), generator=rng))


def _other(name: Name, rng: Rng) -> Splats:
    """A toy of another kind and the same colour."""
    others = [kind for kind in KINDS if kind != name.kind]
    return canonical(Name(others[int(torch.randint(len(others), (), generator=rng))], name.color))


def _moved(toy: Splats, move: Callable[[Tensor], Tensor]) -> Splats:
    return replace(toy, means=move(toy.means))


def _half(name: Name, rng: Rng) -> Splats:
    """The part of a toy beyond the median along a random axis."""
    toy = canonical(name)
    along = toy.means[:, int(torch.randint(3, (), generator=rng))]
    return splats.subset(toy, along >= along.median())


def _mixed(name: Name, rng: Rng) -> Splats:
    """A mix of as many points of one toy as of another, in one place."""
    parts = [canonical(name), _other(name, rng)]
    count = min(map(len, parts))
    return splats.joined(
        *(splats.subset(part, torch.randperm(len(part), generator=rng)[:count]) for part in parts)
    )


TOYS: dict[str, Make] = {
    "true surface": lambda name, rng: canonical(name),
    "astray by 0.03": lambda name, rng: _moved(
        canonical(name), lambda x: x + ROUGH_JITTER * torch.randn(x.shape, generator=rng)
    ),
    "worn": lambda name, rng: splats.worn(canonical(name), rng, _uniform(rng)),
}
IMPOSTORS: dict[str, Make] = {
    "blob": lambda name, rng: splats.blob(canonical(name), rng),
    "ring": lambda name, rng: splats.ring(canonical(name), rng),
    "turned by 90°": lambda name, rng: _moved(
        canonical(name), lambda x: torch.stack([-x[:, 1], x[:, 0], x[:, 2]], dim=1)
    ),
    "two-fronted": lambda name, rng: splats.two_fronted(canonical(name), axis=0),
    "half a toy": _half,
    "stitched of two": lambda name, rng: splats.stitched(
        canonical(name), _other(name, rng), 0.3 * _uniform(rng) - 0.15
    ),
    "mixture of two": _mixed,
    "lump": lambda name, rng: splats.lump(name.color, rng),
    "cloud": lambda name, rng: splats.cloud(rng),
    "recolored": lambda name, rng: splats.recolored(canonical(name), rng),
}
SIDED = ("ring", "turned by 90°", "two-fronted")
"""Impostors only of kinds that are neither round nor faceless; those remain themselves."""
UNTURNED = {*ROUND, *FACELESS}


@dataclass(frozen=True)
class Shares:
    """Shares of clouds of one sort: named right in kind and colour, and refused, in kind or in colour."""

    count: int
    right: float
    refused: float


def shares(sort: str, names: Sequence[Name], seed: int = 0) -> Shares:
    """Judge JUDGED_POINTS points, drawn at random, of a cloud of that sort for each of the names."""
    make = (TOYS | IMPOSTORS)[sort]
    rng = torch.Generator().manual_seed(seed)
    names = [name for name in names if sort not in SIDED or name.kind not in UNTURNED]
    right = refused = 0
    for name in names:
        cloud = make(name, rng)
        chosen = torch.randint(len(cloud), (JUDGED_POINTS,), generator=rng)
        verdict = judge_points(cloud.means[chosen].numpy(), cloud.colors[chosen].numpy())
        right += verdict.name == name
        refused += verdict.name is None
    return Shares(len(names), right / len(names), refused / len(names))


def table() -> str:
    """Table in Markdown: a line for each sort."""
    lines = ["| cloud | clouds | named right | refused |", "|---|---|---|---|"]
    for sort in (*TOYS, *IMPOSTORS):
        found = shares(sort, [*ALONE, *STACKED[::STACKED_EVERY]])
        lines.append(f"| {sort} | {found.count} | {found.right:.0%} | {found.refused:.0%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
