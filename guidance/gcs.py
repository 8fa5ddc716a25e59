"""Guided Consistency Sampling (Connecting Consistency Distillation to Score Distillation; SegmentDreamer Supp. A)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from config.schema import Config
from config.segments import MARGIN
from guidance import solver
from guidance.contract import Gradient, Imagined, PixelGradient, Prediction
from guidance.denoiser import Denoiser
from guidance.noise import RELEASED_OFFSET, Noise
from guidance.prompts import Conditioning
from guidance.schedule import TimeWindow, annealed_interval
from utils.rng import uniform

W_CP = 0.5
"""The pixel term's weight, where the configuration gives none."""


class GCS:
    """The sum of Eq. 14's compact consistency, conditional guidance and pixel constraint, at times e < s < t.

    The gradient flows through the linear coefficients of the steps only, never through the U-Net; E[.] is the
    mean over the views. The target of L_CG and L_CP is F(G(z_t, t, e, y), e) with the guided prediction at e,
    as in the released code; the paper has the unconditional one. U-Net evaluations per view: two for the
    trajectory, two at t (three with a negative prompt), one for L_CC, two for L_CG and L_CP.
    """

    def __init__(self, config: Config, denoiser: Denoiser) -> None:
        params = config.guidance
        self.denoiser, self.params = denoiser, params
        self.w_cp = params.rgb_scale * (W_CP if params.w_cp is None else params.w_cp)
        if not (params.w_cc or params.w_gc or self.w_cp):
            raise ValueError(
                "w_cc, w_gc and w_cp (times rgb_scale) are all 0, but GCS needs at least one of its terms"
            )
        self.schedule = denoiser.prior.schedule
        self.window = TimeWindow.of(config, self.schedule, moving=True)
        # The released code keeps its noise in the branch with Perp-Neg only.
        self.noise = Noise.of(params, fixed=params.perpneg, offset=RELEASED_OFFSET)

    def __call__(
        self, z0: Tensor, conditioning: Conditioning, step: int, rngs: Sequence[torch.Generator]
    ) -> Gradient:
        e, s, t = self.times(step, rngs)
        return self.gradient(z0, self.noise(z0, rngs), conditioning, e, s, t)

    def times(self, step: int, rngs: Sequence[torch.Generator]) -> tuple[Tensor, Tensor, Tensor]:
        """Draw e, s and t [V]: s = t - delta, e ~ U(t - 2 delta, t - delta - 10), in the order e < s < t.

        As released, all are indices to which the scheduler's offset is added, and s and e are at least 1. Where
        s is 1, e is 0, so that e < s.
        """
        offset = self.schedule.steps_offset
        delta = annealed_interval(self.params, step, self.window.warmup_iter)
        delta = min(max(delta, 1), self.schedule.num_timesteps - 2 - offset)
        t = (self.window.draw(step, rngs) - offset).clamp_min(delta + 1)
        s = t - delta
        first = (s - delta).clamp_min(0)
        room = (s - MARGIN - first).clamp_min(1)
        e = torch.minimum((first + (uniform(rngs) * room).long()).clamp_min(1), s - 1)
        return e + offset, s + offset, t + offset

    def gradient(
        self,
        z0: Tensor,
        noise: Tensor,
        conditioning: Conditioning,
        e: Tensor,
        s: Tensor,
        t: Tensor,
    ) -> Gradient:
        """Return the gradient of Eq. 14 with respect to z0 [V, ...]."""
        p, empty, omega = self.params, conditioning.unconditional, self.params.guidance_scale
        # The trajectory z_e -> z_s -> z_t without the prompt.
        z_e = solver.add_noise(z0, noise, e, self.schedule)
        at_e = self.denoiser.predict(z_e, e, empty)
        z_s = self._step(z_e, at_e, e, s)
        z_t = self._step(z_s, self.denoiser.predict(z_s, s, empty), s, t)
        at_t = self.denoiser.guided(z_t, t, conditioning, omega, want_empty=p.w_cc > 0)
        clean_e = solver.clean(z_e, at_e, e, self.schedule)

        imagined = Imagined(partial(solver.clean, z_t, at_t.prediction, t, self.schedule), t)
        parts: dict[str, Tensor] = {}
        predictions: dict[str, Callable[[], Tensor]] = {"at e, without the prompt": lambda: clean_e}
        # The mean is over all views of an iteration, of which these may be a part.
        mean = 2 / p.C_batch_size
        if p.w_cc > 0:
            # L_CC = |G(z_t, t, e, empty) - sg G(z_s^t, s, e, empty)|^2 (Eq. 6); the chain of linear coefficients from
            # z_0 to G(z_t) is alpha_e (alpha_s / alpha_e) (alpha_t / alpha_s) (alpha_e / alpha_t) = alpha_e.
            assert at_t.empty is not None
            z_s_t = self._step(z_t, at_t.prediction, t, s)
            g_t = self._step(z_t, at_t.empty, t, e)
            g_s = self._step(z_s_t, self.denoiser.predict(z_s_t, s, empty), s, e)
            parts["cc"] = p.w_cc * mean * solver.per_view(self.schedule.alpha(e), z0) * (g_t - g_s)
        if p.w_gc == 0 and self.w_cp == 0:
            return Gradient(parts, {"t": t, "s": s, "e": e}, predictions, imagined=imagined)

        # L_CG = |F(z_e, e, empty) - sg F(G(z_t, t, e, y), e, y)|^2: from z_0 to F(z_e) the coefficient is 1.
        g_y = self._step(z_t, at_t.prediction, t, e)
        at_y = self.denoiser.guided(g_y, e, conditioning, omega).prediction
        clean_y = solver.clean(g_y, at_y, e, self.schedule)
        predictions["at e, guided"] = lambda: clean_y
        parts["cg"] = p.w_gc * mean * (clean_e - clean_y)
        # L_CP: the same in pixels, with the render in the place of D(F(z_e, e, empty)) for the derivative.
        pixels = PixelGradient(clean_e, clean_y, self.w_cp * mean) if self.w_cp else None
        return Gradient(parts, {"t": t, "s": s, "e": e}, predictions, pixels, imagined)

    def _step(self, z: Tensor, prediction: Prediction, start: Tensor, end: Tensor) -> Tensor:
        return solver.step(z, prediction, start, end, self.schedule)
