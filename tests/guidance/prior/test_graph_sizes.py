"""The sizes that get a graph are the best there are, among all that could be chosen."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidance.prior.graph_sizes import MOST_GRAPHS, WORTH, graph_sizes, next_size, padding

SHARES = st.dictionaries(st.integers(1, 30), st.floats(0.01, 1), min_size=1, max_size=9)


@given(shares=SHARES, most=st.integers(1, MOST_GRAPHS))
def test_no_other_choice_costs_less(shares: dict[int, float], most: int) -> None:
    """The cost is the padding, and WORTH of all rows for each graph."""
    asked, top = sorted(shares), max(shares)

    def cost(sizes: tuple[int, ...]) -> float:
        return padding(shares, sizes) + WORTH * len(sizes)

    found = graph_sizes(shares, most)
    assert list(found) == sorted(found)
    assert set(found) <= set(asked)
    assert found[-1] == top
    assert len(found) <= most
    others = ((*some, top) for count in range(most) for some in combinations(asked[:-1], count))
    assert cost(found) == pytest.approx(min(map(cost, others)), abs=1e-9)


def test_padding_by_hand() -> None:
    """Batches of 1, 2 and 4 rows, where 2 and 4 have a graph, get one row of 7 added."""
    assert padding({1: 1 / 3, 2: 1 / 3, 4: 1 / 3}, (2, 4)) == pytest.approx(1 / 7)
    assert [next_size(rows, (2, 4)) for rows in (1, 2, 3, 4, 5)] == [2, 2, 4, 4, None]


def test_thousands_of_views_are_no_trouble() -> None:
    assert len(graph_sizes(dict.fromkeys(range(1, 1001), 0.001))) == MOST_GRAPHS
