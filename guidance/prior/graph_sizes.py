"""Batch sizes for which a compiled function gets a graph; other batches are filled up to the next of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import accumulate

MOST_GRAPHS = 4
WORTH = 0.05
"""Share of all rows that a graph has to save in padding: each takes its time to compile when a run begins."""


def graph_sizes(shares: Mapping[int, float], most: int = MOST_GRAPHS) -> tuple[int, ...]:
    """Choose at most `most` batch sizes that need the least padding.

    The largest is among them, and none that is not WORTH its graph.

    Args:
        shares: frequency of each size, at least one of them.
    """
    asked = sorted(shares)
    calls = [0.0, *accumulate(shares[size] for size in asked)]
    rows = [0.0, *accumulate(size * shares[size] for size in asked)]

    @cache
    def best(count: int, graphs: int) -> tuple[float, tuple[int, ...]]:
        """Cost, in rows, and sizes for the smallest `count` batch sizes, the last of which has a graph."""
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
    """First of the increasing `sizes` that so many rows fit into; None where none is large enough."""
    return next((size for size in sizes if size >= rows), None)


def padding(shares: Mapping[int, float], sizes: Sequence[int]) -> float:
    """Added rows as a share of those in the calls, none of which is beyond the largest of `sizes`."""
    filled = sum(share * (next_size(rows, sizes) or rows) for rows, share in shares.items())
    return filled / sum(rows * share for rows, share in shares.items()) - 1
