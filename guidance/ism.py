"""Interval Score Matching (LucidDreamer)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from config.schema import Config
from guidance import solver
from guidance.contract import Gradient, Imagined, Prediction
from guidance.denoiser import Denoiser
from guidance.noise import RELEASED_OFFSET, Noise
from guidance.prompts import Conditioning
from guidance.schedule import TimeWindow, annealed_interval, weight
from utils.rng import normal


class ISM:
    """The interval score, g = w(t) (eps^omega(z_t, t, y) - eps(z_s, s, empty)), along an unconditional DDIM inversion.

    The inversion leads z_0 -> z_s -> z_t, with s = t - delta_T. U-Net evaluations per view: one for each stride
    of the inversion to s (at most `xs_inv_steps`), one at s, which makes both the last step and the target, and
    two at t.
    """

    def __init__(self, config: Config, denoiser: Denoiser) -> None:
        params = config.guidance
        self.denoiser, self.params = denoiser, params
        self.schedule = denoiser.prior.schedule
        self.window = TimeWindow.of(config, self.schedule)
        self.noise = Noise.of(params, fixed=False, offset=RELEASED_OFFSET)

    def __call__(
        self, z0: Tensor, conditioning: Conditioning, step: int, rngs: Sequence[torch.Generator]
    ) -> Gradient:
        t = self.window.draw(step, rngs)
        # Algorithm 1, line 4.
        s = t - annealed_interval(self.params, step, self.window.warmup_iter)
        s = s.clamp_min(self.schedule.steps_offset)
        return self.gradient(z0, self.noise(z0, rngs), conditioning, s, t, rngs)

    def gradient(
        self,
        z0: Tensor,
        noise: Tensor,
        conditioning: Conditioning,
        s: Tensor,
        t: Tensor,
        rngs: Sequence[torch.Generator],
    ) -> Gradient:
        """Return the gradient of Eq. 17 for z0 [V, ...] at s and t [V]."""
        p, schedule = self.params, self.schedule
        # Algorithm 1, lines 5 to 8; the noise is added at s - 5 * 200, or else at the scheduler's first time.
        start = (s - p.xs_delta_t * p.xs_inv_steps).clamp_min(schedule.steps_offset)
        z_s = self.invert(solver.add_noise(z0, noise, start, schedule), start, s, conditioning, rngs)
        # Line 9.
        at_s = self._unguided(z_s, s, conditioning)
        z_t = solver.step(z_s, at_s, s, t, schedule)
        # Line 10.
        at_t = self.denoiser.guided(z_t, t, conditioning, p.guidance_scale).prediction
        w = solver.per_view(weight(p.weighting, t, schedule), z0)
        guided = partial(solver.clean, z_t, at_t, t, schedule)
        return Gradient(
            parts={"interval": w * solver.difference(at_t, at_s, t, schedule)},
            times={"t": t, "s": s},
            predictions={
                "at s, without the prompt": partial(solver.clean, z_s, at_s, s, schedule),
                "at t, guided": guided,
            },
            imagined=Imagined(guided, t),
        )

    def invert(
        self,
        z: Tensor,
        start: Tensor,
        end: Tensor,
        conditioning: Conditioning,
        rngs: Sequence[torch.Generator],
    ) -> Tensor:
        """Move z [V, ...] from times `start` to `end` [V] without the prompt, in strides of delta_S (Eq. 9).

        Views that have arrived take no further part. With `xs_eta` above 0 every stride renews some of the
        noise.
        """
        z, now = z.clone(), start.clone()
        while len(views := torch.nonzero(now < end).squeeze(1)):
            rows = views.to(z.device, non_blocking=True)
            t, u = now[views], torch.minimum(now[views] + self.params.xs_delta_t, end[views])
            found = self._unguided(z[rows], t, conditioning.some(views))
            moved = solver.step(z[rows], found, t, u, self.schedule)
            if self.params.xs_eta > 0:
                fresh = normal(moved.shape[1:], [rngs[view] for view in views.tolist()])
                fresh = fresh.to(moved, non_blocking=True)
                moved = solver.churn(
                    moved, found.eps, t, u, self.schedule, eta=self.params.xs_eta, noise=fresh
                )
            z[rows], now[views] = moved, u
        return z

    def _unguided(self, z: Tensor, t: Tensor, conditioning: Conditioning) -> Prediction:
        """Predict at (z, t) without the prompt.

        A `denoise_guidance_scale` c above 1 guides the inversion towards the negative prompt: eps + c
        (eps_n - eps). Without a negative prompt it does nothing.
        """
        scale, c = self.params.denoise_guidance_scale, conditioning
        if scale <= 1 or c.negative_is_unconditional:
            return self.denoiser.predict(z, t, c.unconditional)
        toward_n = Conditioning(positive=c.negative, negative=c.unconditional, unconditional=c.unconditional)
        return self.denoiser.guided(z, t, toward_n, scale).prediction
