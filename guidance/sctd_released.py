"""Segmented Consistency Trajectory Distillation as SegmentDreamer's released code computes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from config.schema import Config
from guidance import solver
from guidance.contract import Gradient, Imagined, PixelGradient
from guidance.denoiser import Denoiser
from guidance.noise import RELEASED_OFFSET, Noise
from guidance.prompts import Conditioning
from guidance.schedule import ReleasedSegments, weight
from guidance.sctd import trajectory, without_prompt


class ReleasedSCTD:
    """The released gradient, g = w(t) [(G_s - z_{s_m}) + (omega + 1) (z_{s_m} - G_y^omega)], and a pixel term.

    The pixel term is there where `w_cp` is above 0. Differences from the paper (`sctd.py`): the first term has
    the other sign; the guided prediction eps^omega stands wherever the paper has eps_y; the window of t moves
    as a whole; times are on no grid; segments cover that window only; t and s keep a distance from the edges;
    and the noise has an offset per channel, half as large under Perp-Neg if it is fixed.

    U-Net evaluations per view: 5 (two-step trajectory) or 4, two more for the pixel term, and those of
    Perp-Neg's negatives. Differences from the released code: lambda scales the pixel term like the rest, and
    times are not drawn outside of their segment (delta_t 0, t_range from 0).
    """

    def __init__(self, config: Config, denoiser: Denoiser) -> None:
        params = config.guidance
        self.denoiser, self.params = denoiser, params
        self.w_cp = params.w_cp or 0.0
        self.schedule = denoiser.prior.schedule
        self.segments = ReleasedSegments(config, self.schedule)
        kept_beside_perp_neg = params.perpneg and params.fix_noise is not False
        offset = RELEASED_OFFSET / 2 if kept_beside_perp_neg else RELEASED_OFFSET
        self.noise = Noise.of(params, fixed=True, offset=offset)

    def __call__(
        self, z0: Tensor, conditioning: Conditioning, step: int, rngs: Sequence[torch.Generator]
    ) -> Gradient:
        s_m, s, t = self.segments.draw(step, self.params.delta_t, rngs)
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
        """Return the gradient for z0 [V, ...] at s_m <= s < t [V]."""
        p, schedule, omega = self.params, self.schedule, self.params.guidance_scale
        z_sm, z_t, at_sm = trajectory(
            self.denoiser, z0, noise, conditioning, s_m, s, t, t >= p.t_threshold, schedule
        )
        at_t = self.denoiser.guided(z_t, t, conditioning, omega).prediction
        g_y = solver.step(z_t, at_t, t, s_m, schedule)
        z_s = solver.step(z_t, at_t, t, s, schedule)
        g_s = without_prompt(self.denoiser, z_s, conditioning, s, s_m, schedule)
        w = solver.per_view(weight(p.weighting, schedule.with_signal(t), schedule), z0)

        clean = solver.clean(z_sm, at_sm, s_m, schedule)
        guided = partial(solver.clean, z_t, at_t, t, schedule)
        predictions: dict[str, Callable[[], Tensor]] = {
            "at s_m, without the prompt": lambda: clean,
            "at t, guided": guided,
        }
        pixels = None
        if self.w_cp > 0:
            at_y = self.denoiser.guided(g_y, s_m, conditioning, omega).prediction
            clean_y = solver.clean(g_y, at_y, s_m, schedule)
            predictions["at s_m, guided"] = lambda: clean_y
            pixels = PixelGradient(clean, clean_y, 2 * p.rgb_scale * self.w_cp / p.C_batch_size)
        return Gradient(
            parts={"self": w * (g_s - z_sm), "cross": (omega + 1) * w * (z_sm - g_y)},
            times={"t": t, "s": s, "s_m": s_m},
            predictions=predictions,
            pixels=pixels,
            imagined=Imagined(guided, t),
        )
