"""A run without its files, alone or as one of several processes, for test_ranks.py.

python tests/ranks.py FILE VIEWS_AT_ONCE FLAG ..."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import config as configuration
from training.iterations import iterations, logs
from training.state import assemble, checkpoint_of
from utils.device import HOST
from utils.interruption import Interruption
from utils.ranks import Ranks, RanksDiffer, launched, meeting


def check_exchange(ranks: Ranks) -> None:
    """Check, as one of two processes, what they tell each other."""
    rank = ranks.rank
    tensor, radii = torch.arange(3.0) + rank, torch.tensor([rank, 1 - rank])
    ranks.sum_([tensor])
    ranks.max_(radii)
    assert tensor.tolist() == [1, 3, 5]
    assert radii.tolist() == [1, 1]
    mine = ranks.share(5)
    assert ranks.all_views(torch.arange(5.0)[mine.start : mine.stop], 5).tolist() == [0, 1, 2, 3, 4]
    assert ranks.least(7 - rank, HOST) == 6
    assert ranks.greatest(-rank, HOST) == 0
    taken = torch.full((2,), float(rank))
    ranks.take_from_first([taken])
    assert taken.tolist() == [0, 0]
    same = torch.linspace(0, 1, 50)
    ranks.check_same([same], "These numbers")
    # Two rows exchanged: the same numbers in another order.
    other = same.clone() if rank == 0 else same[[1, 0, *range(2, 50)]]
    with pytest.raises(RanksDiffer, match="These numbers of process 1 are not those of process 0"):
        ranks.check_same([same, other], "These numbers")


def main(file: str, views_at_once: str, *flags: str) -> None:
    config, ranks = configuration.load(flags), launched()
    last, sizes, logged = config.optimization.iterations, set(), []
    with meeting(ranks, HOST):
        if ranks.count == 2:
            check_exchange(ranks)
        state = assemble(config, ranks=ranks)
        state.counts.views_at_once = int(views_at_once)
        for iteration in iterations(state, Interruption()):
            sizes.add(len(state.gaussians))
            if logs(state.counts.step, last):
                logged.append({name: float(value) for name, value in iteration.numbers.items()})
    torch.save(
        {
            "tensors": checkpoint_of(state).tensors,
            "sizes": sizes,
            "logged": logged,
            "dimmed": state.counts.dimmed,
            "evaluations": state.counts.evaluations,
        },
        Path(file).with_suffix(f".{ranks.rank}"),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
