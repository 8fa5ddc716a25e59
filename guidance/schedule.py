"""Noise levels, the windows that timesteps are drawn from, and the segments of the trajectory.

All of it lives on the host in float64 or int64. Timesteps are drawn there, so looking up their noise levels
never waits for an accelerator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from config import segments
from config.schema import Config, GuidanceParams
from config.segments import MARGIN, segment_edges
from utils.rng import integers, uniform

__all__ = ["CLEAN", "ReleasedSegments", "Schedule", "SegmentedGrid", "TimeWindow", "segment_edges", "weight"]

CLEAN = -1
"""The timestep of a clean sample: alpha = 1, sigma = 0."""


class Schedule:
    """Noise levels z_t = alpha_t z_0 + sigma_t eps for the integer timesteps 0..L-1 and CLEAN.

    Args:
        alpha, sigma: [L], in [0, 1]; alpha falls, to 0 at the end of a flow and with zero terminal SNR.
        told: [L], the time that the network is told at each.
        num_timesteps: T, of which windows of t are shares; L for diffusion, L - 1 for a flow, whose last t is T.
        steps_offset: the timestep of index 0, from which the authors' codes count all times that they draw.
    Attributes:
        variance_preserving: true for diffusion, where alpha_t^2 + sigma_t^2 is 1 throughout.
    Raises: ValueError if these are no such levels.
    """

    def __init__(
        self, alpha: Tensor, sigma: Tensor, told: Tensor, *, num_timesteps: int, steps_offset: int = 0
    ) -> None:
        levels = torch.stack([alpha, sigma]).double()
        if levels.dim() != 2 or not bool(((levels >= 0) & (levels <= 1)).all()):
            raise ValueError(
                f"alpha and sigma must be vectors with values in [0, 1], got {alpha} and {sigma}"
            )
        self.num_timesteps, self.steps_offset = num_timesteps, steps_offset
        self._last_with_signal = int((alpha > 0).sum()) - 1
        # The clean sample is stored last, where the index CLEAN = -1 finds it.
        clean = levels.new_tensor([[1.0], [0.0]])
        self._alpha, self._sigma = torch.cat([levels, clean], dim=1)
        self._told = told
        power = self._alpha**2 + self._sigma**2
        self._power = torch.where((power - 1).abs() < 1e-9, 1.0, power)
        self.variance_preserving = bool((self._power == 1).all())

    @classmethod
    def diffusion(cls, alphas_cumprod: Tensor, steps_offset: int = 0) -> Schedule:
        """Make the schedule of abar_t [T], decreasing, each in [0, 1): alpha_t^2 + sigma_t^2 = 1.

        Raises: ValueError if it is no vector of such values.
        """
        abar = torch.tensor(alphas_cumprod.tolist(), dtype=torch.float64)
        if abar.dim() != 1 or not bool(((abar >= 0) & (abar < 1)).all()):
            raise ValueError(
                f"alphas_cumprod must be a vector with values in [0, 1), got shape {tuple(abar.shape)} "
                f"and values in [{abar.min():.4g}, {abar.max():.4g}]"
            )
        told, count = torch.arange(len(abar)), len(abar)
        return cls(abar.sqrt(), (1 - abar).sqrt(), told, num_timesteps=count, steps_offset=steps_offset)

    @classmethod
    def flow(cls, shift: float = 1.0, num_timesteps: int = 1000) -> Schedule:
        """Make the schedule of a rectified flow, alpha_t + sigma_t = 1, from the clean t = 0 to the noise of t = T.

        sigma = s tau / (1 + (s - 1) tau) with tau = t / T and the shift s, and the network is told T sigma. Its
        schedulers' times begin at 1, as they do here.
        """
        tau = torch.arange(num_timesteps + 1, dtype=torch.float64) / num_timesteps
        sigma = shift * tau / (1 + (shift - 1) * tau)
        told = (num_timesteps * sigma).float()
        return cls(1 - sigma, sigma, told, num_timesteps=num_timesteps, steps_offset=1)

    def alpha(self, t: Tensor) -> Tensor:
        """Return alpha_t [V] float64 for timesteps t [V] on the host."""
        return self._alpha[t]

    def sigma(self, t: Tensor) -> Tensor:
        """Return sigma_t [V] float64 for timesteps t [V] on the host."""
        return self._sigma[t]

    def power(self, t: Tensor) -> Tensor:
        """Return alpha_t^2 + sigma_t^2 [V] float64, exactly 1 for diffusion, for timesteps t [V] on the host."""
        return self._power[t]

    def told(self, t: Tensor) -> Tensor:
        """Return the times [V] that the network is told at timesteps t [V] on the host."""
        return self._told[t]

    def with_signal(self, t: Tensor) -> Tensor:
        """Return timesteps t [V], with the last one of alpha > 0 in the place of those where alpha is 0."""
        return t.clamp_max(self._last_with_signal)


def weight(name: str, t: Tensor, schedule: Schedule) -> Tensor:
    """Return w(t) [V] on the host for timesteps t [V], a factor on `solver.difference` of two predictions.

    `sigma_over_alpha` is what SegmentDreamer and LucidDreamer run with, `sigma_squared` is DreamFusion's. Where
    alpha is 0, the difference is that of clean samples, and one in eps is -alpha / sigma times it: sigma / alpha
    becomes sigma, the other two become 0.
    """
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    signal = alpha > 0
    if name == "sigma_over_alpha":
        return sigma / torch.where(signal, alpha, 1.0)
    if name == "sigma_squared":
        return torch.where(signal, sigma**2, 0.0)
    if name == "one":
        return signal.double()
    raise ValueError(f"weighting must be 'sigma_over_alpha', 'one' or 'sigma_squared', got '{name}'")


def left_of_warmup(step: int, warmup_iter: int) -> float:
    """Share of the warm-up that is left: 1 at the first iteration, falling evenly to 0 at `warmup_iter`."""
    return max(0.0, 1 - step / warmup_iter) if warmup_iter > 0 else 0.0


def annealed_interval(params: GuidanceParams, step: int, warmup_iter: int) -> int:
    """Interval delta_T in timesteps: from `delta_t_start` to `delta_t` over the warm-up, if `annealing_intervals`."""
    if not params.annealing_intervals:
        return params.delta_t
    return params.delta_t + math.ceil(
        left_of_warmup(step, warmup_iter) * (params.delta_t_start - params.delta_t)
    )


@dataclass(frozen=True)
class TimeWindow:
    """The window that t is drawn from, U(low, high + warm (1 - step / warmup_iter)), in timesteps.

    SegmentDreamer, Sec. 5.1: low 20, high 500, warm 480, warmup_iter 1500. The released codes draw an index from
    20 to below 500 + 480, and the scheduler's offset of 1 makes t of it: low is 21. With `moving` the lower end
    falls with the upper one, as in the released code of GCS and SCTD.
    """

    low: int
    high: int
    warm: int
    warmup_iter: int
    moving: bool = False

    @classmethod
    def of(cls, config: Config, schedule: Schedule, *, moving: bool = False) -> TimeWindow:
        """Make the window of `t_range`, `max_t_range` and `warmup_iter`; max_t_range <= t_range[1] means no warm-up.

        Raises: ValueError if the range is none.
        """
        params = config.guidance
        window = segments.time_window(
            params.t_range, params.max_t_range, schedule.num_timesteps, schedule.steps_offset
        )
        return cls(*window, config.optimization.warmup_iter, moving)

    def at(self, step: int) -> tuple[int, int]:
        """The first and last timestep that can be drawn at iteration `step`."""
        shift = int(self.warm * left_of_warmup(step, self.warmup_iter))
        return self.low + (shift if self.moving else 0), self.high + shift

    def draw(self, step: int, rngs: Sequence[torch.Generator]) -> Tensor:
        """Timesteps [V] int64, uniform over the window at iteration `step`, one from each of V generators."""
        return integers(*self.at(step), rngs)


class SegmentedGrid:
    """The solver's times, `num_ddim_timesteps` of them evenly spaced from the offset, cut into `phase_num` segments.

    Segment edges are moved to the nearest solver time: every time that the solver visits is one of `points`.

    Attributes:
        points: at most [num_ddim_timesteps] int64, increasing and below T; the first is `steps_offset`.
        edges: [phase_num + 1] int64, increasing; the first is the first point, the last is T, past the last one.
    Raises: ValueError if two edges fall on one point or no point is left in the narrowest window.
    """

    def __init__(
        self,
        schedule: Schedule,
        num_ddim_timesteps: int,
        *,
        phase_num: int,
        t_mode: str,
        t_threshold: float,
        window: TimeWindow,
    ) -> None:
        points, edges = segments.solver_grid(
            schedule.num_timesteps,
            num_ddim_timesteps,
            phase_num=phase_num,
            t_mode=t_mode,
            t_threshold=t_threshold,
            low=window.low,
            high=window.high,
            steps_offset=schedule.steps_offset,
        )
        self.points, self.edges = torch.tensor(points), torch.tensor(edges)
        self.window = window

    def draw(self, step: int, rngs: Sequence[torch.Generator]) -> Tensor:
        """Draw t [V] int64, uniform over the window's solver times at iteration `step`, one from each of V
        generators."""
        times = self._within(*self.window.at(step))
        return times[integers(0, len(times) - 1, rngs)]

    def start_of_segment(self, t: Tensor) -> Tensor:
        """Return s_m [V], the last edge before t [V], which is past the first.

        A t on an edge belongs to the segment that ends there, as in SegmentDreamer's definition of consistency
        (Sec. 4.2: s_m <= s < t <= s_{m+1}). Algorithm 1's s_i <= t differs only there, which a continuous t
        never meets. On a grid it would often give s_m = t, and with it no gradient at all.
        """
        return self.edges[torch.searchsorted(self.edges, t) - 1]

    def draw_between(self, s_m: Tensor, t: Tensor, rngs: Sequence[torch.Generator]) -> Tensor:
        """Draw s [V] ~ U(s_m, t) over the solver times strictly between; s_m where t is the next solver time."""
        first, last = torch.searchsorted(self.points, s_m), torch.searchsorted(self.points, t)
        inside = last - first - 1
        offset = (uniform(rngs) * inside).long() + 1
        return self.points[first + torch.where(inside > 0, offset, 0)]

    def _within(self, low: int, high: int) -> Tensor:
        """Solver times in [low, high] that have a segment before them."""
        later = self.points[1:]
        return later[(later >= low) & (later <= high)]


class ReleasedSegments:
    """The segments of SegmentDreamer's released code, and the times that it draws in them: on no grid.

    Attributes:
        edges: [phase_num + 1] int64, increasing, from t_min to the end of the warm-up's window.
        last: the last timestep that there is.
    Raises: ValueError naming the settings if an interval would not be positive.
    """

    def __init__(self, config: Config, schedule: Schedule) -> None:
        params, self.last = config.guidance, schedule.num_timesteps - 1
        low, _, top = segments.indices(params.t_range, params.max_t_range, schedule.num_timesteps)
        edges = segments.released_edges(
            low,
            top,
            schedule.num_timesteps,
            phase_num=config.phase_num,
            t_mode=params.t_mode,
            t_threshold=params.t_threshold,
            steps_offset=schedule.steps_offset,
        )
        self.edges = torch.tensor(edges)
        self.window = TimeWindow.of(config, schedule, moving=True)

    def draw(self, step: int, least: int, rngs: Sequence[torch.Generator]) -> tuple[Tensor, Tensor, Tensor]:
        """Draw s_m, s and t, [V] each, s_m <= s < t.

        t ~ U(window), and s_m is the start of its segment; t is at least `least` (and at least 1) past it, and
        may leave the segment by that. s ~ U(s_m, t), at least MARGIN from both where there is room.
        """
        t = self.window.draw(step, rngs)
        # The last edge ends the last segment and starts none.
        s_m = self.edges[torch.searchsorted(self.edges[1:-1], t, right=True)]
        t = torch.maximum(t, s_m + max(least, 1)).clamp_max(self.last)
        room = (t - s_m - 2 * MARGIN).clamp_min(1)
        offset = (uniform(rngs) * room).long()
        return s_m, torch.minimum(s_m + MARGIN + offset, t - 1), t
