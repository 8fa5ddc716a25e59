"""Score Distillation Sampling (DreamFusion)."""

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
from guidance.schedule import TimeWindow, weight


class SDS:
    """The score distillation gradient, g = w(t) (eps^omega(z_t, t, y) - eps) with z_t = alpha_t z_0 + sigma_t eps.

    Two U-Net evaluations per view, one at omega = 0 or 1. Each view has a timestep of its own. DreamFusion:
    w(t) = sigma_t^2, omega = 100, fresh noise; LucidDreamer's family: w(t) = sigma_t / alpha_t.
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
        return self.gradient(z0, self.noise(z0, rngs), conditioning, t)

    def gradient(self, z0: Tensor, noise: Tensor, conditioning: Conditioning, t: Tensor) -> Gradient:
        """Return the gradient of DreamFusion's Eq. 3 for z0 [V, ...] at t [V].

        Where eps_n is at hand (omega is not 1), it is split into (eps_n - eps) and omega (eps_y - eps_n).
        """
        omega = self.params.guidance_scale
        z_t = solver.add_noise(z0, noise, t, self.schedule)
        found = self.denoiser.guided(z_t, t, conditioning, omega, want_n=omega != 1)
        truth = Prediction(noise, lambda: z0)
        w = solver.per_view(weight(self.params.weighting, t, self.schedule), z0)
        guided = partial(solver.clean, z_t, found.prediction, t, self.schedule)
        if found.n is None:
            denoise = solver.difference(found.prediction, truth, t, self.schedule)
            return Gradient(
                {"denoise": w * denoise}, {"t": t}, {"guided": guided}, imagined=Imagined(guided, t)
            )
        return Gradient(
            parts={
                "denoise": w * solver.difference(found.n, truth, t, self.schedule),
                "guidance": w * solver.difference(found.prediction, found.n, t, self.schedule),
            },
            times={"t": t},
            predictions={
                "without the prompt": partial(solver.clean, z_t, found.n, t, self.schedule),
                "guided": guided,
            },
            imagined=Imagined(guided, t),
        )
