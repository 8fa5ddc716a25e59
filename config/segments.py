"""The window that t is drawn from and the segments of SCTD, in whole timesteps.

They are plain numbers, so that settings which leave no room are reported before a prior is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, pairwise

MARGIN = 10
"""Timesteps that the released code of GCS and SCTD keeps between the times of one trajectory."""


STEPS_OFFSETS = (0, 1)
"""Values of `steps_offset` in the schedulers' files of Stable Diffusion and its like."""


def indices(t_range: Sequence[float], max_t_range: float, num_timesteps: int) -> tuple[int, int, int]:
    """Return the first index of the window of t, its end after the warm-up, and its end before.

    An index is a timestep less the scheduler's `steps_offset`; an end is the first index past the window.
    `t_range` and `max_t_range` are fractions of T. Raises: ValueError if the range is none.
    """
    low, high, top = (round(x * num_timesteps) for x in (*t_range, max_t_range))
    if not 0 <= low <= min(high, num_timesteps - 1):
        raise ValueError(f"t_range must be two increasing fractions in [0, 1], got {list(t_range)}")
    return low, high, max(high, top)


def time_window(
    t_range: Sequence[float], max_t_range: float, num_timesteps: int, steps_offset: int
) -> tuple[int, int, int]:
    """Return the lowest t, the highest after the warm-up, and how far above that it starts.

    The authors draw an index below the end, and add the offset; t is at most T - 1 here.
    Raises: ValueError if the range is none.
    """
    low, high, top = indices(t_range, max_t_range, num_timesteps)
    first, last, start = (
        min(index + steps_offset, num_timesteps - 1) for index in (low, max(high - 1, low), max(top - 1, low))
    )
    return first, last, start - last


def segment_edges(num_timesteps: int, phase_num: int, t_mode: str, t_threshold: float) -> list[float]:
    """Return the N_s + 1 edges s_0 = 0 < ... < s_{N_s} = T of the sub-trajectories (SegmentDreamer Sec. 4.3).

    `uniform`: equal intervals. `mono`: s_{m+1} - s_m = t_tau + 2 m (T - N_s t_tau) / (N_s (N_s - 1)).

    Raises: ValueError naming both settings if an interval would not be positive.
    """
    if phase_num < 1:
        raise ValueError(f"phase_num must be at least 1, got {phase_num}")
    if t_mode not in ("uniform", "mono"):
        raise ValueError(f"t_mode must be 'uniform' or 'mono', got '{t_mode}'")
    if t_mode == "uniform" or phase_num == 1:
        return [num_timesteps * m / phase_num for m in range(phase_num + 1)]
    growth = 2 * (num_timesteps - phase_num * t_threshold) / (phase_num * (phase_num - 1))
    edges = [0.0]
    for m in range(phase_num):
        interval = t_threshold + m * growth
        if interval <= 0:
            raise ValueError(
                f"t_mode 'mono' with phase_num {phase_num} and t_threshold {t_threshold:g} makes segment {m} "
                f"{interval:g} timesteps long; t_threshold must lie in (0, {2 * num_timesteps / phase_num:g})"
            )
        edges.append(edges[-1] + interval)
    return [*edges[:-1], float(num_timesteps)]


def solver_grid(
    num_timesteps: int,
    num_ddim_timesteps: int,
    *,
    phase_num: int,
    t_mode: str,
    t_threshold: float,
    low: int,
    high: int,
    steps_offset: int,
) -> tuple[list[int], list[int]]:
    """Return the solver's times, evenly spaced from `steps_offset`, and the segments' edges, each moved to a time.

    The times are those of diffusers' "leading" spacing; any beyond T - 1 are left out. Edges go to the nearest
    time, counted without the offset. The last edge is T, which is past the last time; [low, high] is the
    narrowest window of t.

    Raises: ValueError if two edges fall on one time or none is left in the window.
    """
    if not 1 <= num_ddim_timesteps <= num_timesteps:
        raise ValueError(f"num_ddim_timesteps must be in [1, {num_timesteps}], got {num_ddim_timesteps}")
    stride = num_timesteps / num_ddim_timesteps
    times = _solver_times(num_timesteps, num_ddim_timesteps, steps_offset)
    exact = [edge + steps_offset for edge in segment_edges(num_timesteps, phase_num, t_mode, t_threshold)]
    edges = [*(min(times, key=lambda time: abs(time - edge)) for edge in exact[:-1]), num_timesteps]
    if any(start >= end for start, end in pairwise(edges)):
        raise ValueError(
            f"num_ddim_timesteps {num_ddim_timesteps} is too few for phase_num {phase_num} segments "
            f"(t_mode '{t_mode}', t_threshold {t_threshold:g}): two edges fall on one solver step of {stride:g} "
            "timesteps, so take more steps or fewer segments"
        )
    if not any(low <= time <= high for time in times[1:]):
        enough = (
            count
            for count in range(num_ddim_timesteps, num_timesteps + 1)
            if any(low <= time <= high for time in _solver_times(num_timesteps, count, steps_offset)[1:])
        )
        remedy = "".join(f"{count}, or " for count in islice(enough, 1))
        raise ValueError(
            f"num_ddim_timesteps {num_ddim_timesteps} leaves no solver step inside t_range "
            f"[{low}, {high}] timesteps; use {remedy}a wider t_range"
        )
    return times, edges


def _solver_times(num_timesteps: int, count: int, steps_offset: int) -> list[int]:
    times = (int(i * num_timesteps / count) + steps_offset for i in range(count))
    return [time for time in times if time < num_timesteps]


def released_edges(
    low: int,
    top: int,
    num_timesteps: int,
    *,
    phase_num: int,
    t_mode: str,
    t_threshold: int,
    steps_offset: int,
) -> list[int]:
    """Return the edges of SegmentDreamer's released code over [low, top), the indices of the widest window.

    `uniform`: evenly, the timestep of the index that is one less than the fraction but not below 0. `mono`:
    intervals (t_tau - low) + m d with d a whole number, what is left for the last, and no offset.

    Raises: ValueError naming the settings if an interval would not be positive.
    """
    if t_mode == "uniform" or phase_num == 1:
        places = (max(0, low + (top - low) * m // phase_num - 1) for m in range(phase_num + 1))
        edges = [min(index + steps_offset, num_timesteps - 1) for index in places]
        remedy = f"phase_num must be at most {top - low}" if top > low else "t_range must be wider"
    else:
        first = t_threshold - low
        growth = 2 * (top - low - phase_num * first) // (phase_num * (phase_num - 1))
        edges = [low + m * first + growth * (m * (m - 1) // 2) for m in range(phase_num)]
        edges.append(min(top, num_timesteps - 1))
        remedy = f"t_threshold must be above {low} and under about {low + 2 * (top - low) / phase_num:g}"
    for m, (start, end) in enumerate(pairwise(edges)):
        if end <= start:
            raise ValueError(
                f"t_mode '{t_mode}' with phase_num {phase_num} and t_threshold {t_threshold} cuts [{low}, {top}] so that "
                f"segment {m} is {end - start} timesteps long; {remedy}"
            )
    return edges
