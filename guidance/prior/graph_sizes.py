"""Which batch sizes a compiled function gets a graph for, where other batches are filled up to the next of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import accumulate

MOST_GRAPHS = 4
WORTH = 0.05
"""Of all rows, what a graph has to save in padding: each takes its time to compile when a run begins."""


def graph_sizes(shares: Mapping[int, float], most: int = MOST_GRAPHS) -> tuple[int, ...]:
    """At most so many of the batch sizes that are asked for, the largest among them: those that need the least padding,
    without any that is not WORTH its graph.

    Args:
        shares: how often each size is asked for, at least one of them.
    """
    asked = sorted(shares)
    calls = [0.0, *accumulate(shares[size] for size in asked)]
    rows = [0.0, *accumulate(size * shares[size] for size in asked)]

    @cache
    def best(count: int, graphs: int) -> tuple[float, tuple[int, ...]]:
        """The cost, in rows, and the sizes for the smallest `count` of those asked for, the last of which has a graph."""
        if count == 0 or graphs == 0:
            return (0.0 if count == 0 else math.inf), ()
        top = asked[count - 1]
        found = []
        for below in range(count):
            cost, sizes = best(below, graphs - 1)
            cost += top * (calls[count] - calls[below]) - (rows[count] - rows[below]) + WORTH * rows[-1]
            found.append((cost, (*sizes, top)))
        return min(found)

    return best(len(asked), most)[1]


def next_size(rows: int, sizes: Sequence[int]) -> int | None:
    """The first of the increasing `sizes` that so many rows fit into; None where none is large enough."""
    return next((size for size in sizes if size >= rows), None)


def padding(shares: Mapping[int, float], sizes: Sequence[int]) -> float:
    """Rows that are added, as a share of those that are asked for, none of which is beyond the largest of `sizes`."""
    filled = sum(share * (next_size(rows, sizes) or rows) for rows, share in shares.items())
    return filled / sum(rows * share for rows, share in shares.items()) - 1
