"""A run without its files, alone or as one of several processes, for test_ranks.py.

python tests/ranks.py FILE VIEWS_AT_ONCE FLAG ..."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import config as configuration
from scene.snapshot import snapshot
from training.iterations import iterations, logs
from training.state import assemble
from utils.device import HOST
from utils.interruption import Interruption
from utils.ranks import launched, meeting


def main(file: str, views_at_once: str, *flags: str) -> None:
    config, ranks = configuration.load(flags), launched()
    last, sizes, logged = config.optimization.iterations, set(), []
    with meeting(ranks, HOST):
        state = assemble(config, ranks=ranks)
        state.counts.views_at_once = int(views_at_once)
        for iteration in iterations(state, Interruption()):
            sizes.add(len(state.gaussians))
            if logs(state.counts.step, last):
                logged.append({name: float(value) for name, value in iteration.numbers.items()})
    torch.save(
        {
            "tensors": snapshot(state.optimizer),
            "sizes": sizes,
            "logged": logged,
            "dimmed": state.counts.dimmed,
            "evaluations": state.counts.evaluations,
        },
        Path(file).with_suffix(f".{ranks.rank}"),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
