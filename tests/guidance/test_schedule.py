"""Noise levels, time windows, segments and the solver's grid."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guidance.schedule import CLEAN, Schedule, SegmentedGrid, TimeWindow, segment_edges
from tests.guidance.analytic_prior import stable_diffusion_alphas

PAPER = TimeWindow.from_fractions((0.02, 0.5), 0.98, 1500, 1000)


def grid(
    *, points: int = 50, phase_num: int = 5, t_mode: str = "uniform", window: TimeWindow = PAPER
) -> SegmentedGrid:
    return SegmentedGrid(1000, points, phase_num=phase_num, t_mode=t_mode, t_threshold=150, window=window)


def test_alpha_and_sigma() -> None:
    abar = stable_diffusion_alphas()
    schedule = Schedule(abar)
    t = torch.tensor([0, 500, 999, CLEAN])
    assert torch.equal(schedule.alpha(t), torch.cat([abar[t[:3]].sqrt(), torch.ones(1).double()]))
    torch.testing.assert_close(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones(4).double())
    assert float(schedule.sigma(t)[3]) == 0


@pytest.mark.parametrize("bad", [torch.tensor([0.9, 1.5]), torch.ones(2, 2) / 2])
def test_refuses_what_is_no_schedule(bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="alphas_cumprod"):
        Schedule(bad)


def test_window_of_the_paper() -> None:
    assert PAPER.at(0) == (20, 980)
    assert PAPER.at(750) == (20, 740)
    assert PAPER.at(1500) == PAPER.at(10_000) == (20, 500)
    assert TimeWindow.from_fractions((0.02, 0.5), 0.98, 0, 1000).at(0) == (20, 500)
    assert TimeWindow.from_fractions((0.02, 0.98), 0.5, 1500, 1000).at(0) == (20, 980)


def test_window_draws_reach_both_ends_and_nothing_else() -> None:
    window = TimeWindow(low=3, high=6, warm=4, warmup_iter=4)
    rng = torch.Generator().manual_seed(0)
    assert set(window.draw(0, 1000, rng).tolist()) == set(range(3, 11))
    assert set(window.draw(2, 1000, rng).tolist()) == set(range(3, 9))
    assert set(window.draw(9, 1000, rng).tolist()) == set(range(3, 7))


def test_window_refuses_a_reversed_range() -> None:
    with pytest.raises(ValueError, match="t_range"):
        TimeWindow.from_fractions((0.5, 0.02), 0.98, 1500, 1000)


@given(
    phase_num=st.integers(1, 40),
    t_mode=st.sampled_from(["uniform", "mono"]),
    t_threshold=st.integers(1, 1000),
)
def test_edges_partition_the_whole_time(phase_num: int, t_mode: str, t_threshold: int) -> None:
    if t_mode == "mono" and phase_num > 1 and t_threshold >= 2 * 1000 / phase_num:
        with pytest.raises(ValueError, match=f"phase_num {phase_num} and t_threshold {t_threshold} "):
            segment_edges(1000, phase_num, t_mode, t_threshold)
        return
    edges = segment_edges(1000, phase_num, t_mode, t_threshold)
    intervals = torch.tensor(edges, dtype=torch.float64).diff()
    assert edges[0] == 0
    assert edges[-1] == 1000
    assert len(intervals) == phase_num
    assert bool((intervals > 0).all())
    if phase_num > 1 and t_mode == "mono":
        growth = 2 * (1000 - phase_num * t_threshold) / (phase_num * (phase_num - 1))
        torch.testing.assert_close(intervals.diff(), torch.full((phase_num - 1,), growth).double())
    else:
        torch.testing.assert_close(intervals, torch.full((phase_num,), 1000 / phase_num).double())


def test_edges_of_the_paper() -> None:
    assert segment_edges(1000, 5, "uniform", 150) == [0, 200, 400, 600, 800, 1000]
    assert segment_edges(1000, 5, "mono", 150) == [0, 150, 325, 525, 750, 1000]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, "uniform", 150), "phase_num must be at least 1, got 0"),
        ((5, "linear", 150), "t_mode must be 'uniform' or 'mono', got 'linear'"),
        ((5, "mono", 400), "phase_num 5 and t_threshold 400"),
    ],
)
def test_edges_that_cannot_be(arguments: tuple[int, str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        segment_edges(1000, *arguments)


def test_grid_of_the_default_configuration() -> None:
    assert grid().points.tolist() == list(range(0, 1000, 20))
    assert grid().edges.tolist() == [0, 200, 400, 600, 800, 1000]


@given(
    points=st.integers(50, 1000),
    phase_num=st.integers(1, 8),
    t_mode=st.sampled_from(["uniform", "mono"]),
    step=st.integers(0, 2000),
    seed=st.integers(0, 99),
)
def test_drawn_times_lie_in_their_segment(
    points: int, phase_num: int, t_mode: str, step: int, seed: int
) -> None:
    times = grid(points=points, phase_num=phase_num, t_mode=t_mode)
    rng = torch.Generator().manual_seed(seed)
    t = times.draw(step, 16, rng)
    s_m = times.start_of_segment(t)
    s = times.draw_between(s_m, t, rng)
    low, high = PAPER.at(step)
    assert bool(((t >= low) & (t <= high)).all())
    assert bool(((s_m <= s) & (s < t)).all())
    for drawn in (t, s, s_m):
        assert bool(torch.isin(drawn, times.points).all())
    assert bool(torch.isin(s_m, times.edges).all())
    for start, end in zip(s_m.tolist(), t.tolist()):
        assert not [edge for edge in times.edges.tolist() if start < edge < end]


def test_every_interior_time_is_drawn_as_s() -> None:
    times = grid()
    s_m, t = torch.full((2000,), 200), torch.full((2000,), 300)
    drawn = times.draw_between(s_m, t, torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {220, 240, 260, 280}
    next_to = times.draw_between(s_m[:3], torch.full((3,), 220), torch.Generator().manual_seed(0))
    assert next_to.tolist() == [200, 200, 200]


def test_a_time_on_an_edge_belongs_to_the_segment_that_ends_there() -> None:
    assert grid().start_of_segment(torch.tensor([20, 180, 200, 220, 980])).tolist() == [0, 0, 0, 200, 800]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"points": 0}, "num_ddim_timesteps must be in"),
        ({"points": 1001}, "num_ddim_timesteps must be in"),
        ({"points": 4}, "num_ddim_timesteps 4 is too few for phase_num 5"),
        ({"points": 1, "phase_num": 1}, "num_ddim_timesteps 1 leaves no solver step"),
    ],
)
def test_grids_that_cannot_be(arguments: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        grid(**arguments)  # type: ignore[arg-type]
