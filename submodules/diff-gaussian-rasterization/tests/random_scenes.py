"""Random scenes, ordinary and adversarial, for backends to agree on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

SIZES = [15, 16, 17, 31, 32, 33, 47, 48, 49, 64]  # pixels, around the borders of tiles
Shaper = Callable[[dict[str, Tensor], torch.Generator], None]


def _needles(g: dict[str, Tensor], rng: torch.Generator) -> None:
    g["scales"][:, 0] *= 30
    g["scales"][:, 1:] /= 30


def _huge(g: dict[str, Tensor], rng: torch.Generator) -> None:
    g["scales"] *= 10 ** (2 * torch.rand(len(g["scales"]), 1, generator=rng))


def _behind(g: dict[str, Tensor], rng: torch.Generator) -> None:
    g["means"] *= 6  # the cameras stand three away from the middle


def _ties(g: dict[str, Tensor], rng: torch.Generator) -> None:
    g["means"] = g["means"][torch.arange(len(g["means"])) % 5].clone()


def _nonfinite(g: dict[str, Tensor], rng: torch.Generator) -> None:
    for tensor in g.values():
        rows = torch.rand(len(tensor), generator=rng) < 0.1
        bad = torch.tensor([float("nan"), float("inf"), -float("inf")])
        tensor[rows, -1] = bad[torch.randint(3, tensor[rows, -1].shape, generator=rng)]


def _opaque(g: dict[str, Tensor], rng: torch.Generator) -> None:
    g["opacities"].fill_(1.0)
    g["scales"] *= 3


def _faint(g: dict[str, Tensor], rng: torch.Generator) -> None:
    g["opacities"] *= 3 / 255


def _tiny(g: dict[str, Tensor], rng: torch.Generator) -> None:
    g["scales"] *= 1e-3


def _plain(g: dict[str, Tensor], rng: torch.Generator) -> None:
    pass


SHAPERS: list[Shaper] = [_plain, _needles, _huge, _behind, _ties, _nonfinite, _opaque, _faint, _tiny]


def random_case(seed: int, make_scene: Callable[..., Any]) -> tuple[Any, dict[str, Any]]:
    """A scene of random sizes in which one or two things go wrong, and the options to render it with."""
    rng = torch.Generator().manual_seed(seed)

    def pick(values: list[Any]) -> Any:
        return values[int(torch.randint(len(values), (), generator=rng))]

    scene = make_scene(
        pick([1, 5, 40, 150]),
        views=pick([1, 1, 2, 3]),
        width=pick(SIZES),
        height=pick(SIZES),
        seed=seed,
        degree=pick([None, 0, 1, 2, 3]),
        size=pick([0.02, 0.1, 0.3]),
    )
    for shape in dict.fromkeys([SHAPERS[seed % len(SHAPERS)], pick(SHAPERS)]):
        shape(scene.gaussians, rng)
    return scene, {"antialiasing": pick([False, True]), "scale_modifier": pick([1.0, 0.7])}
