"""Training loop for all networks: seeded, resumable, logged."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from toybox.lab.muon import Muon

MUON_LR = 0.02
"""Peak learning rate of Muon, its authors' own."""

Loss = Callable[[int, torch.Generator], tuple[Tensor, dict[str, float | Tensor]]]


@dataclass(frozen=True)
class Schedule:
    """Schedule of AdamW: `steps` at learning rate lr, linear warm-up over `warmup` steps, then half a cosine
    to zero.

    ema: decay of the averaged weights, which are what the model holds in the end; 0 keeps the last ones.
    """

    steps: int
    lr: float
    warmup: int = 200
    weight_decay: float = 0.01
    ema: float = 0.998

    def factor(self, step: int) -> float:
        return min(1.0, (step + 1) / self.warmup) * 0.5 * (1 + math.cos(math.pi * step / self.steps))


def _optimizers(
    model: nn.Module, muon: Sequence[nn.Parameter], schedule: Schedule
) -> list[tuple[torch.optim.Optimizer, float]]:
    """Return what trains a model, each with its peak learning rate."""
    of_muon, decay = {*muon}, schedule.weight_decay
    others = [parameter for parameter in model.parameters() if parameter not in of_muon]
    adam = torch.optim.AdamW(others, lr=schedule.lr, weight_decay=decay, betas=(0.9, 0.99))
    return [(adam, schedule.lr), *([(Muon(muon, MUON_LR, decay), MUON_LR)] if muon else [])]


def fit(
    name: str,
    model: nn.Module,
    loss: Loss,
    schedule: Schedule,
    folder: Path,
    seed: int,
    muon: Sequence[nn.Parameter] = (),
) -> None:
    """Train `model` in place by descending loss(step, rng) and leave its averaged weights in it.

    Every 500 steps the state goes to `folder`/name.pt, from which an interrupted run continues exactly.

    muon: matrices that Muon trains, at MUON_LR; AdamW trains all else.
    """
    checkpoint = folder / f"{name}.pt"
    rng = torch.Generator().manual_seed(seed)
    optimizers = _optimizers(model, muon, schedule)
    average = [p.detach().clone() for p in model.parameters()]
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for (optimizer, _), saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        average, first = state["average"], state["step"]
        rng.set_state(state["rng"])

    model.train()
    writer = SummaryWriter(str(folder / "logs" / name))
    bar = tqdm(range(first, schedule.steps), initial=first, total=schedule.steps, desc=name)
    for step in bar:
        for optimizer, peak in optimizers:
            optimizer.param_groups[0]["lr"] = peak * schedule.factor(step)
        value, logs = loss(step, rng)
        model.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, _ in optimizers:
            optimizer.step()
        kept = min(schedule.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 1 - kept)
        if step % 50 == 0:
            shown = {"loss": float(value.detach()), **{key: float(number) for key, number in logs.items()}}
            bar.set_postfix({key: f"{number:.3g}" for key, number in shown.items()})
            for key, number in shown.items():
                writer.add_scalar(f"{name}/{key}", number, step)
        if (step + 1) % 500 == 0 or step + 1 == schedule.steps:
            state = {"model": model.state_dict(), "average": average, "step": step + 1, "rng": rng.get_state(),
                     "optimizers": [optimizer.state_dict() for optimizer, _ in optimizers]}  # fmt: skip
            torch.save(state, checkpoint.with_suffix(".tmp"))
            os.replace(checkpoint.with_suffix(".tmp"), checkpoint)
    writer.close()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), average):
            parameter.copy_(value)
    model.eval()
