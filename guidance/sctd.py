"""Segmented Consistency Trajectory Distillation (SegmentDreamer, Algorithm 1), as in the paper."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from config.schema import Config
from guidance import solver
from guidance.contract import Gradient, Imagined, Prediction
from guidance.denoiser import Denoiser
from guidance.noise import Noise
from guidance.prompts import Conditioning
from guidance.schedule import Schedule, SegmentedGrid, TimeWindow, weight


class SCTD:
    """Self-consistency within a segment of the ODE trajectory, and consistency across conditions (Eq. 10).

    g = w(t) [(G(z_t, empty) - G_s) + (omega + 1)^2 (G(z_t, empty) - G_y)]; w(t) stands for Eq. 10's b(t), the 2
    of the square and the alpha_{s_m} by which z_{s_m} depends on z_0. Every view has a t (and s) of its own.
    The views still go through the network in one batch, and several noise levels per iteration make a steadier
    gradient than one.

    U-Net evaluations per view: 4 (two-step trajectory) or 3, and 2 where s = s_m; one less without `w_self`, where
    s > s_m; one more for a negative prompt or for `approximate: false`, and with Perp-Neg those of its negatives and
    of n.
    """

    def __init__(self, config: Config, denoiser: Denoiser) -> None:
        params = config.guidance
        self.denoiser, self.params = denoiser, params
        self.schedule = denoiser.prior.schedule
        self.grid = SegmentedGrid(
            self.schedule,
            config.num_ddim_timesteps,
            phase_num=config.phase_num,
            t_mode=params.t_mode,
            t_threshold=params.t_threshold,
            window=TimeWindow.of(config, self.schedule),
        )
        self.noise = Noise.of(params, fixed=True)

    def __call__(
        self, z0: Tensor, conditioning: Conditioning, step: int, rngs: Sequence[torch.Generator]
    ) -> Gradient:
        # Lines 4, 5 and 7.
        t = self.grid.draw(step, rngs)
        s_m = self.grid.start_of_segment(t)
        s = self.grid.draw_between(s_m, t, rngs)
        return self.gradient(z0, self.noise(z0, rngs), conditioning, s_m, s, t)

    def gradient(
        self,
        z0: Tensor,
        noise: Tensor,
        conditioning: Conditioning,
        s_m: Tensor,
        s: Tensor,
        t: Tensor,
    ) -> Gradient:
        """Return the gradient of Eq. 10 with respect to z0 [V, ...] at s_m <= s < t [V].

        A negative prompt n takes the empty one's place in the second term, G(z_t, n) - G_y, at the cost of one
        more evaluation. `approximate` (Sec. 4.4) takes G(z_t, empty) to be z_{s_m}, and the same for the
        derivative of G(z_t, n), so that nothing goes back through the U-Net. Otherwise both come from the
        U-Net, and are differentiated as such.
        """
        p, schedule, exact = self.params, self.schedule, not self.params.approximate
        with torch.set_grad_enabled(exact):
            leaf = z0.detach().requires_grad_(exact)
            z_sm, z_t, at_sm = trajectory(
                self.denoiser, leaf, noise, conditioning, s_m, s, t, t > p.t_threshold, schedule
            )
            negative = conditioning.has_negative
            # G(z_t, empty) is in the first term, and in the second where no n is.
            empty = exact and (p.w_self > 0 or not negative)
            at_t = self.denoiser.guided(z_t, t, conditioning, 1.0, want_n=negative, want_empty=empty)
            origin = z_sm if at_t.empty is None else solver.step(z_t, at_t.empty, t, s_m, schedule)
            across = origin if at_t.n is None else solver.step(z_t, at_t.n, t, s_m, schedule)
        # Lines 8 and 9, with G_theta of Eq. 5.
        z_sm, z_t, at_y = z_sm.detach(), z_t.detach(), at_t.prediction.detach()
        g_y = solver.step(z_t, at_y, t, s_m, schedule)
        w = solver.per_view(weight(p.weighting, schedule.with_signal(t), schedule), z0)
        parts = {}
        if p.w_self > 0:
            z_s = solver.step(z_t, at_y, t, s, schedule)
            g_s = without_prompt(self.denoiser, z_s, conditioning, s, s_m, schedule)
            parts["self"] = p.w_self * w * (origin.detach() - g_s)
        parts["cross"] = (p.guidance_scale + 1) ** 2 * w * (across.detach() - g_y)
        if exact:
            # d origin / d z_0 is alpha_{s_m} where the approximation holds.
            ends = {"self": origin, "cross": across}
            residuals = [part / solver.per_view(schedule.alpha(s_m), z0) for part in parts.values()]
            [whole] = torch.autograd.grad([ends[name] for name in parts], leaf, residuals)
            parts = {"_and_".join(parts): whole}
        shown = partial(solver.clean, z_t, at_y, t, schedule)
        return Gradient(
            parts,
            times={"t": t, "s": s, "s_m": s_m},
            predictions={
                "at s_m, without the prompt": partial(solver.clean, z_sm, at_sm.detach(), s_m, schedule),
                "at t, with the prompt": shown,
            },
            imagined=Imagined(shown, t),
        )


def trajectory(
    denoiser: Denoiser,
    z0: Tensor,
    noise: Tensor,
    conditioning: Conditioning,
    s_m: Tensor,
    s: Tensor,
    t: Tensor,
    two_steps: Tensor,
    schedule: Schedule,
) -> tuple[Tensor, Tensor, Prediction]:
    """Add noise up to s_m, then move without the prompt to t (line 6, Eq. 11), through s for the views `two_steps`.

    Args:
        two_steps: [V] bool.
    Returns: z_{s_m} and z_t, each [V, ...], and the prediction at z_{s_m} without the prompt.
    """
    z_sm = solver.add_noise(z0, noise, s_m, schedule)
    at_sm = denoiser.predict(z_sm, s_m, conditioning.unconditional)
    stop = torch.where(two_steps & (s > s_m), s, t)
    z_stop = solver.step(z_sm, at_sm, s_m, stop, schedule)
    return z_sm, without_prompt(denoiser, z_stop, conditioning, stop, t, schedule), at_sm


def without_prompt(
    denoiser: Denoiser,
    z: Tensor,
    conditioning: Conditioning,
    t: Tensor,
    u: Tensor,
    schedule: Schedule,
) -> Tensor:
    """Move z [V, ...] from times t to u [V] without the prompt; views where these are equal need no evaluation."""
    views = torch.nonzero(t != u).squeeze(1)
    if not len(views):
        return z
    if len(views) == len(z):
        return solver.step(z, denoiser.predict(z, t, conditioning.unconditional), t, u, schedule)
    rows = views.to(z.device, non_blocking=True)
    some = z[rows]
    found = denoiser.predict(some, t[views], conditioning.unconditional.rows(views))
    return z.index_copy(0, rows, solver.step(some, found, t[views], u[views], schedule))
