"""Noise levels, the window that timesteps are drawn from, and the segmented grid of solver times.

All of it lives on the host in float64 or int64: timesteps are drawn there, so looking up their noise levels
never waits for an accelerator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

CLEAN = -1
"""The timestep of a clean sample: alpha = 1, sigma = 0."""


class Schedule:
    """alpha_t = sqrt(abar_t) and sigma_t = sqrt(1 - abar_t) for integer timesteps 0..T-1 and CLEAN.

    Args:
        alphas_cumprod: [T] abar_t, decreasing, each in (0, 1).
    Raises: ValueError if they are not.
    """

    def __init__(self, alphas_cumprod: torch.Tensor) -> None:
        abar = torch.tensor(alphas_cumprod.tolist(), dtype=torch.float64)
        if abar.dim() != 1 or not bool(((abar >= 0) & (abar < 1)).all()):
            raise ValueError(
                f"alphas_cumprod must be a vector with values in [0, 1), got shape {tuple(abar.shape)} "
                f"and values in [{abar.min():.4g}, {abar.max():.4g}]"
            )
        self.num_timesteps = len(abar)
        # The clean sample is stored last, where the index CLEAN = -1 finds it.
        abar = torch.cat([abar, abar.new_ones(1)])
        self._alpha, self._sigma = abar.sqrt(), (1 - abar).sqrt()

    def alpha(self, t: torch.Tensor) -> torch.Tensor:
        """alpha_t [V] float64 for timesteps t [V] on the host."""
        return self._alpha[t]

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        """sigma_t [V] float64 for timesteps t [V] on the host."""
        return self._sigma[t]


@dataclass(frozen=True)
class TimeWindow:
    """t ~ U(low, high + warm (1 - step / warmup_iter)), in timesteps.

    SegmentDreamer, Sec. 5.1: low 20, high 500, warm 480, warmup_iter 1500.
    """

    low: int
    high: int
    warm: int
    warmup_iter: int

    @classmethod
    def from_fractions(
        cls, t_range: Sequence[float], max_t_range: float, warmup_iter: int, num_timesteps: int
    ) -> TimeWindow:
        """The window of `t_range` and `max_t_range`, fractions of T; max <= t_range[1] means no warm-up."""
        low, high, top = (round(x * num_timesteps) for x in (*t_range, max_t_range))
        high = min(high, num_timesteps - 1)
        if not 0 <= low <= high:
            raise ValueError(f"t_range must be two increasing fractions in [0, 1], got {list(t_range)}")
        return cls(low, high, max(0, min(top, num_timesteps - 1) - high), warmup_iter)

    def at(self, step: int) -> tuple[int, int]:
        """The first and last timestep that can be drawn at iteration `step`."""
        left = max(0.0, 1 - step / self.warmup_iter) if self.warmup_iter > 0 else 0.0
        return self.low, self.high + int(self.warm * left)

    def draw(self, step: int, count: int, rng: torch.Generator) -> torch.Tensor:
        """`count` timesteps [count] int64, uniform over the window at iteration `step`."""
        low, high = self.at(step)
        return torch.randint(low, high + 1, (count,), generator=rng)


def segment_edges(num_timesteps: int, phase_num: int, t_mode: str, t_threshold: float) -> list[float]:
    """The N_s + 1 edges s_0 = 0 < ... < s_{N_s} = T of the sub-trajectories (SegmentDreamer Sec. 4.3).

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


class SegmentedGrid:
    """The solver's times, `num_ddim_timesteps` of them evenly spaced from 0, cut into `phase_num` segments.

    Segment edges are moved to the nearest solver time: every time that the solver visits is one of `points`.

    Attributes:
        points: [num_ddim_timesteps] int64, increasing, the first is 0.
        edges: [phase_num + 1] int64, increasing; the first is 0, the last is T, which is past the last point.
    Raises: ValueError if two edges fall on one point or no point is left in the narrowest window.
    """

    def __init__(
        self,
        num_timesteps: int,
        num_ddim_timesteps: int,
        *,
        phase_num: int,
        t_mode: str,
        t_threshold: float,
        window: TimeWindow,
    ) -> None:
        if not 1 <= num_ddim_timesteps <= num_timesteps:
            raise ValueError(f"num_ddim_timesteps must be in [1, {num_timesteps}], got {num_ddim_timesteps}")
        stride = num_timesteps / num_ddim_timesteps
        self.points = torch.tensor([int(i * stride) for i in range(num_ddim_timesteps)])
        exact = segment_edges(num_timesteps, phase_num, t_mode, t_threshold)
        inner = [int(self.points[(self.points - edge).abs().argmin()]) for edge in exact[:-1]]
        self.edges = torch.tensor([*inner, num_timesteps])
        if not bool((self.edges.diff() > 0).all()):
            raise ValueError(
                f"num_ddim_timesteps {num_ddim_timesteps} is too few for phase_num {phase_num} segments "
                f"(t_mode '{t_mode}'): two edges fall on one solver step of {stride:g} timesteps"
            )
        if not len(self._within(window.low, window.high)):
            raise ValueError(
                f"num_ddim_timesteps {num_ddim_timesteps} leaves no solver step inside t_range "
                f"[{window.low}, {window.high}] timesteps; use at least {-(-num_timesteps // window.high)}"
            )
        self.window = window

    def draw(self, step: int, count: int, rng: torch.Generator) -> torch.Tensor:
        """t [count] int64, uniform over the solver times of the window at iteration `step`."""
        times = self._within(*self.window.at(step))
        return times[torch.randint(len(times), (count,), generator=rng)]

    def start_of_segment(self, t: torch.Tensor) -> torch.Tensor:
        """s_m [V]: the last edge before t [V], t > 0.

        A t on an edge belongs to the segment that ends there, as in the definition of consistency in
        SegmentDreamer (Sec. 4.2: s_m <= s < t <= s_{m+1}). Algorithm 1's s_i <= t differs only there, which a
        continuous t never meets; on a grid it would often give s_m = t, and with it no gradient at all.
        """
        return self.edges[torch.searchsorted(self.edges, t) - 1]

    def draw_between(self, s_m: torch.Tensor, t: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """s [V] ~ U(s_m, t) over the solver times strictly between; s_m where t is the next solver time."""
        first, last = torch.searchsorted(self.points, s_m), torch.searchsorted(self.points, t)
        inside = last - first - 1
        offset = (torch.rand(len(t), generator=rng, dtype=torch.float64) * inside).long() + 1
        return self.points[first + torch.where(inside > 0, offset, 0)]

    def _within(self, low: int, high: int) -> torch.Tensor:
        """Solver times in [low, high] that have a segment before them."""
        return self.points[(self.points >= max(low, 1)) & (self.points <= high)]
