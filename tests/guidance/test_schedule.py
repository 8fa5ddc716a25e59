"""Noise levels, time windows, segments and the solver's grid."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from config import Config
from config.guidance_params import GuidanceParams
from guidance.schedule import (
    CLEAN,
    ReleasedSegments,
    Schedule,
    SegmentedGrid,
    TimeWindow,
    annealed_interval,
    segment_edges,
)
from tests.changed import changed
from tests.draws import rngs
from tests.guidance.analytic_prior import AnalyticPrior, PixelPrior, stable_diffusion_alphas
from tests.guidance.cases import VARIANTS, build, latents

SCHEDULES = {offset: Schedule.diffusion(stable_diffusion_alphas(), offset) for offset in (0, 1)}
"""Schedules by their offset: 1 is Stable Diffusion's."""


def window_of(
    t_range: tuple[float, float],
    max_t_range: float,
    warmup_iter: int = 1500,
    *,
    moving: bool = False,
    offset: int = 1,
) -> TimeWindow:
    settings = {"t_range": t_range, "max_t_range": max_t_range, "warmup_iter": warmup_iter}
    return TimeWindow.of(changed(Config(), **settings), SCHEDULES[offset], moving=moving)


PAPER = window_of((0.02, 0.5), 0.98)


def grid(
    *,
    points: int = 50,
    phase_num: int = 5,
    t_mode: str = "uniform",
    window: TimeWindow = PAPER,
    offset: int = 1,
) -> SegmentedGrid:
    return SegmentedGrid(
        SCHEDULES[offset], points, phase_num=phase_num, t_mode=t_mode, t_threshold=150, window=window
    )


def test_alpha_and_sigma() -> None:
    abar = stable_diffusion_alphas()
    schedule = Schedule.diffusion(abar)
    t = torch.tensor([0, 500, 999, CLEAN])
    assert torch.equal(schedule.alpha(t), torch.cat([abar[t[:3]].sqrt(), torch.ones(1).double()]))
    torch.testing.assert_close(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones(4).double())
    assert float(schedule.sigma(t)[3]) == 0


@pytest.mark.parametrize("bad", [torch.tensor([0.9, 1.5]), torch.ones(2, 2) / 2])
def test_refuses_what_is_no_schedule(bad: Tensor) -> None:
    with pytest.raises(ValueError, match="alphas_cumprod"):
        Schedule.diffusion(bad)


def test_window_of_the_paper() -> None:
    assert PAPER.at(0) == (21, 980)
    assert PAPER.at(750) == (21, 740)
    assert PAPER.at(1500) == PAPER.at(10_000) == (21, 500)
    assert window_of((0.02, 0.5), 0.98, 0).at(0) == (21, 500)
    assert window_of((0.02, 0.98), 0.5).at(0) == (21, 980)
    assert window_of((0.02, 0.5), 0.98, offset=0).at(1500) == (20, 499)
    # Theirs would look for abar_1000.
    assert window_of((0.999, 1.0), 1.0).at(0) == (999, 999)


def test_window_draws_reach_both_ends_and_nothing_else() -> None:
    window = TimeWindow(low=3, high=6, warm=4, warmup_iter=4)
    views = rngs(1000)
    assert set(window.draw(0, views).tolist()) == set(range(3, 11))
    assert set(window.draw(2, views).tolist()) == set(range(3, 9))
    assert set(window.draw(9, views).tolist()) == set(range(3, 7))


def test_window_refuses_a_reversed_range() -> None:
    with pytest.raises(ValueError, match="t_range"):
        window_of((0.5, 0.02), 0.98)


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
    """Its points are the timesteps of diffusers' own sampler."""
    for offset in (0, 1):
        scheduler = DDIMScheduler(steps_offset=offset)
        scheduler.set_timesteps(50)
        times = grid(offset=offset)
        assert times.points.tolist() == scheduler.timesteps.flip(0).tolist()
        assert times.edges.tolist() == [*(offset + edge for edge in range(0, 1000, 200)), 1000]
    assert grid(points=1000).points.tolist() == list(range(1, 1000))


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
    views = rngs(16, seed)
    t = times.draw(step, views)
    s_m = times.start_of_segment(t)
    s = times.draw_between(s_m, t, views)
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
    s_m, t = torch.full((2000,), 201), torch.full((2000,), 301)
    drawn = times.draw_between(s_m, t, rngs(len(t)))
    assert set(drawn.tolist()) == {221, 241, 261, 281}
    next_to = times.draw_between(s_m[:3], torch.full((3,), 221), rngs(3))
    assert next_to.tolist() == [201, 201, 201]


def test_a_time_on_an_edge_belongs_to_the_segment_that_ends_there() -> None:
    assert grid().start_of_segment(torch.tensor([21, 181, 201, 221, 981])).tolist() == [1, 1, 1, 201, 801]


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


def test_the_steps_that_are_advised_are_enough() -> None:
    narrow = TimeWindow(999, 999, 0, 0)
    with pytest.raises(ValueError, match="use 1000, or a wider t_range"):
        grid(points=999, phase_num=1, window=narrow, offset=0)
    enough = grid(points=1000, phase_num=1, window=narrow, offset=0)
    assert enough.draw(0, rngs(2)).tolist() == [999, 999]


def test_moving_window_keeps_its_width() -> None:
    moving = window_of((0.02, 0.5), 0.98, moving=True)
    assert moving.at(0) == (501, 980)
    assert moving.at(750) == (261, 740)
    assert moving.at(1500) == PAPER.at(1500) == (21, 500)


@given(
    low=st.integers(0, 999),
    high=st.integers(1, 1000),
    top=st.integers(1, 1000),
    warmup_iter=st.integers(0, 50),
    step=st.integers(0, 60),
    moving=st.booleans(),
    offset=st.sampled_from([0, 1]),
)
def test_windows_stay_within_the_schedule(
    low: int, high: int, top: int, warmup_iter: int, step: int, moving: bool, offset: int
) -> None:
    assume(low < high)
    settings = {"moving": moving, "offset": offset}
    window = window_of((low / 1000, high / 1000), top / 1000, warmup_iter, **settings)  # type: ignore[arg-type]
    first, last = window.at(step)
    lowest = min(low + offset, 999)
    assert lowest <= first <= last <= 999
    if not moving:
        assert first == lowest
    if step >= warmup_iter or top <= high:
        assert (first, last) == (lowest, min(high - 1 + offset, 999))
    drawn = window.draw(step, rngs(64))
    assert bool(((drawn >= first) & (drawn <= last)).all())


def test_interval_is_annealed_as_lucid_dreamer_does() -> None:
    params = GuidanceParams(delta_t=80, delta_t_start=100)
    assert [annealed_interval(params, step, 1500) for step in (0, 1, 75, 76, 750, 1499, 1500, 9999)] == [
        *(100, 100, 99, 99, 90, 81, 80, 80)
    ]
    growing = GuidanceParams(delta_t=100, delta_t_start=80)
    assert [annealed_interval(growing, step, 10) for step in (0, 5, 10)] == [80, 90, 100]
    assert annealed_interval(params, 0, 0) == 80
    assert annealed_interval(params.model_copy(update={"annealing_intervals": False}), 0, 1500) == 80


def released(
    t_range: tuple[float, float] = (0.02, 0.5), max_t_range: float = 0.98, *, offset: int = 1, **settings: Any
) -> ReleasedSegments:
    config = changed(Config(), t_range=t_range, max_t_range=max_t_range, **settings)
    return ReleasedSegments(config, SCHEDULES[offset])


def test_edges_of_the_released_code() -> None:
    assert released().edges.tolist() == [20, 212, 404, 596, 788, 980]
    assert released(offset=0).edges.tolist() == [19, 211, 403, 595, 787, 979]
    # d = 2 (960 - 5 * 130) // 20 = 31; these are plain numbers.
    for offset in (0, 1):
        assert released(t_mode="mono", offset=offset).edges.tolist() == [20, 150, 311, 503, 726, 980]
    assert released((0.0, 0.5)).edges.tolist() == [1, 196, 392, 588, 784, 980]
    assert released(phase_num=1).edges.tolist() == [20, 980]
    assert released(max_t_range=1.0).edges.tolist()[-1] == 999


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("t_mode", ["uniform", "mono"])
def test_released_times_are_those_of_the_authors(t_mode: str, offset: int) -> None:
    """Each t and s can be drawn by their rule, written with indices and `timesteps[index] = index + offset`."""
    segments = released(t_mode=t_mode, offset=offset)
    edges = segments.edges.tolist()
    for step in (0, 1000, 1500):
        warm = int(480 * (1 - step / 1500))
        possible: dict[int, set[int]] = {}
        for index in range(20 + warm, 500 + warm):
            t_e = max(edge for edge in edges[:-1] if edge <= index + offset)
            possible.setdefault(max(index + offset, t_e + 80), set()).add(t_e)
        s_m, s, t = segments.draw(step, 80, rngs(3000, step))
        assert set(t.tolist()) <= possible.keys()
        assert {min(possible), max(possible)} <= {*t.tolist()} | {min(possible) + 1, max(possible) - 1}
        for start, middle, end in zip(s_m.tolist(), s.tolist(), t.tolist()):
            assert start in possible[end]
            assert start + 10 <= middle < end - 10


def test_released_segments_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="t_mode 'mono' with phase_num 5 and t_threshold 20 "):
        released(t_mode="mono", t_threshold=20)
    with pytest.raises(ValueError, match="phase_num 30 and t_threshold 150 cuts"):
        released((0.5, 0.51), 0.51, phase_num=30)


@given(
    low=st.integers(0, 400),
    width=st.integers(100, 600),
    top=st.integers(1, 1000),
    phase_num=st.integers(1, 5),
    t_mode=st.sampled_from(["uniform", "mono"]),
    share=st.floats(0.3, 1.7),
    step=st.integers(0, 2000),
    least=st.sampled_from([0, 1, 80, 1000]),
    seed=st.integers(0, 99),
    offset=st.sampled_from([0, 1]),
)
def test_released_draws_lie_in_order_and_keep_their_distance(
    low: int,
    width: int,
    top: int,
    phase_num: int,
    t_mode: str,
    share: float,
    step: int,
    least: int,
    seed: int,
    offset: int,
) -> None:
    high = min(low + width, 999)
    # Between shrinking and growing segments, all above 0.
    t_threshold = low + int(share * (max(high, top) - low) / phase_num)
    segments = released(
        (low / 1000, high / 1000),
        top / 1000,
        phase_num=phase_num,
        t_mode=t_mode,
        t_threshold=t_threshold,
        offset=offset,
    )
    s_m, s, t = segments.draw(step, least, rngs(64, seed))
    assert bool(((s_m >= 0) & (s_m <= s) & (s < t) & (t <= 999)).all())
    assert bool(torch.isin(s_m, segments.edges[:-1]).all())
    assert bool(((t - s_m >= least) | (t == 999)).all())
    # s is as far from both as there is room for.
    assert bool(((s - s_m >= 10) | (t - s_m <= 10)).all())
    assert bool(((t - s >= 10) | (t - s_m <= 20)).all())
    if least <= 1:
        # t is in the segment that s_m starts.
        ends = segments.edges[torch.searchsorted(segments.edges, s_m) + 1]
        assert bool(((t < ends) | (ends == segments.edges[-1])).all())


@pytest.mark.parametrize(
    ("stage", "start", "end", "gap"), [("coarse", 700, 100, 300), ("refine", 300, 20, 200)]
)
def test_released_cds_times(stage: str, start: int, end: int, gap: int) -> None:
    """The times are those of consistency-coarse.yaml and consistency-refine.yaml: t_2 as a whole number, t_1 - t_2 from 100 below `gap`."""
    for step in (0, 1, 333, 999):
        later, earlier = cds_times(stage, step, variant="cds released")
        assert set(earlier.tolist()) == {int(start + (end - start) * (step / 1000) ** 0.5)}
        apart = later - earlier
        assert 100 <= int(apart.min()) < 103
        assert gap - 3 < int(apart.max()) < gap or int(later.max()) == 980


def cds_times(stage: str, step: int, count: int = 500, variant: str = "cds") -> tuple[Tensor, Tensor]:
    method = build(variant, AnalyticPrior(), cds_stage=stage, iterations=1000).method
    return method.times(step, rngs(count))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("stage", "step", "t_2", "ahead"),
    [
        ("coarse", 0, 700, (100, 200)),
        ("coarse", 250, 400, (100, 200)),
        ("coarse", 1000, 100, (100, 200)),
        ("refine", 0, 500, (100, 100)),
        ("refine", 250, 260, (100, 100)),
        ("refine", 9999, 20, (100, 100)),
        # The first half is the coarse stage, the second the refinement, each run through whole.
        ("both", 0, 700, (100, 200)),
        ("both", 125, 400, (100, 200)),
        ("both", 499, 101, (100, 200)),
        ("both", 500, 500, (100, 100)),
        ("both", 625, 260, (100, 100)),
        ("both", 1000, 20, (100, 100)),
    ],
)
def test_cds_times(stage: str, step: int, t_2: int, ahead: tuple[int, int]) -> None:
    """Consistent3D Eq. 12 and Sec. 4.3, by hand: sqrt(0.25) = 0.5."""
    later, earlier = cds_times(stage, step)
    assert set(earlier.tolist()) == {t_2}
    apart = later - earlier
    assert int(apart.min()) >= ahead[0] - 1
    assert int(apart.max()) <= ahead[1] + 1
    assert int(apart.max()) - int(apart.min()) >= 0.9 * (ahead[1] - ahead[0])


@given(
    low=st.integers(0, 998),
    delta=st.sampled_from([0, 1, 5, 80, 300, 999, 1000]),
    step=st.integers(0, 400),
    seed=st.integers(0, 99),
)
def test_gcs_times_are_in_order(low: int, delta: int, step: int, seed: int) -> None:
    method = build(
        "gcs", AnalyticPrior(), t_range=[low / 1000, 1.0], delta_t=delta, delta_t_start=delta
    ).method
    e, s, t = method.times(step, rngs(64, seed))  # type: ignore[attr-defined]
    assert bool(((e >= 1) & (e < s) & (s < t) & (t <= 999)).all())
    if 10 < delta < 300:
        assert bool((t - s == delta).all())
        assert bool(((t - e <= 2 * delta) & ((s - e > 10) | (e <= 2))).all())


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("t_range", [[0.02, 0.5], [0.02, 0.12]])
def test_gcs_times_are_those_of_the_authors(t_range: list[float], offset: int) -> None:
    """All are reached, and no others: their rule in indices, but that e is before s where theirs are both 1."""
    prior = AnalyticPrior(steps_offset=offset)
    method: Any = build("gcs", prior, t_range=t_range, warmup_iter=1).method
    possible = set()
    low, high = (round(1000 * share) for share in t_range)
    for index in range(low, high):
        t = max(index, 80 + 1)
        s = max(t - 80, 1)
        for e in range(max(t - 160, 0), max(t - 80 - 10, 1)):
            possible.add(tuple(offset + i for i in (min(max(e, 1), s - 1), s, t)))
    found = {tuple(times) for times in torch.stack(method.times(399, rngs(3000)), dim=1).tolist()}
    assert found <= possible
    assert {t for _, _, t in found} >= {min(t for *_, t in possible), max(t for *_, t in possible)}
    if high < 160:
        assert {e for e, _, _ in found} >= {offset, offset + 1}


@pytest.mark.parametrize("offset", [0, 1])
def test_the_inversion_of_ism_begins_at_the_schedulers_first_time(offset: int) -> None:
    """LucidDreamer's start index is max(s - 5 * 200, 0), and its last time before t is s."""
    prior = PixelPrior(steps_offset=offset)
    method: Any = build("ism", prior, t_range=[0.53, 0.5301], warmup_iter=1).method
    gradient = method(latents(2), prior.conditioning(0, 2), 1, rngs(2))
    assert gradient.times["t"].tolist() == [530 + offset] * 2
    inverted = [int(t[0]) - offset for _, t in prior.calls[:4]]
    assert inverted == [0, 200, 400, 450]
    early: Any = build("ism", prior, t_range=[0.05, 0.0501], max_t_range=0.05).method
    assert early(latents(1), prior.conditioning(0, 1), 399, rngs(1)).times["s"].tolist() == [offset]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("delta", [0, 1000])
@pytest.mark.parametrize("t_range", [[0.0, 0.1], [0.0, 1.0], [0.9, 1.0]])
def test_extreme_settings_have_times(variant: str, delta: int, t_range: list[float]) -> None:
    """Settings that are allowed run, at the first and the last iteration, and give numbers."""
    prior = PixelPrior()
    guide = build(
        variant, prior, t_range=t_range, max_t_range=1.0, delta_t=delta, delta_t_start=delta, w_cp=0.5
    )
    images = torch.full((16, 4, 4, 4), 0.4)
    for step in (0, 400):
        output = guide(images, prior.conditioning(0, 16), step, rngs(16, step))
        assert bool(output.gradient.isfinite().all())
        for _, t in prior.calls:
            assert bool(((t >= 0) & (t <= 999)).all())
