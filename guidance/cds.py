"""Consistency Distillation Sampling (Consistent3D), as in the paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from config.schema import Config
from guidance import solver
from guidance.contract import Gradient, Imagined
from guidance.denoiser import Denoiser
from guidance.noise import Noise
from guidance.prompts import Conditioning
from guidance.schedule import Schedule
from utils.rng import uniform


@dataclass(frozen=True)
class Stage:
    """A stage's time schedule, in fractions of T: t_2 falls from t_max to t_min, t_1 - t_2 ~ U(delta, Delta)."""

    t_max: float
    t_min: float
    delta: float
    Delta: float


COARSE = Stage(t_max=0.7, t_min=0.1, delta=0.1, Delta=0.2)
REFINE = Stage(t_max=0.5, t_min=0.02, delta=0.1, Delta=0.1)
STAGES = {"coarse": (COARSE,), "refine": (REFINE,), "both": (COARSE, REFINE)}
"""`cds_stage` -> stages that share the run's iterations evenly (Consistent3D Sec. 4.3)."""


class CDS:
    """Consistency of two guided predictions: g = eps^omega(z_1, t_1, y) - eps^omega(z_2, t_2, y).

    One step of the solver leads from z_1 to z_2. Four U-Net evaluations per view. The sign is that of the
    released code, against the paper: Eq. 10 minimises |D_1 - sg(D_2)|^2 with the derivative of D_1 passed
    straight to z_0, which gives D_1 - D_2 = (sigma_2 / alpha_2) (eps_2 - eps_1). Followed literally it runs
    away from the data, whatever the prompt (tests/guidance/test_distillation.py). Consistent3D does not count
    times from the scheduler's offset, in the paper or in its code.
    """

    def __init__(self, config: Config, denoiser: Denoiser) -> None:
        params = config.guidance
        self.denoiser, self.omega = denoiser, params.guidance_scale
        self.schedule = denoiser.prior.schedule
        self.stages, self.iterations = STAGES[params.cds_stage], config.optimization.iterations
        self.noise = Noise.of(params, fixed=True)

    def __call__(
        self, z0: Tensor, conditioning: Conditioning, step: int, rngs: Sequence[torch.Generator]
    ) -> Gradient:
        t_1, t_2 = self.times(step, rngs)
        return self.gradient(z0, self.noise(z0, rngs), conditioning, t_1, t_2)

    def times(self, step: int, rngs: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
        """Draw t_1 and t_2 [V] at iteration `step`: t_2 by Eq. 12, and t_1 ~ U(t_2 + delta, t_2 + Delta)."""
        index, progress = stage_at(step, self.iterations, len(self.stages))
        stage, total = self.stages[index], self.schedule.num_timesteps
        t_2 = stage.t_max - (stage.t_max - stage.t_min) * math.sqrt(progress)
        ahead = stage.delta + (stage.Delta - stage.delta) * uniform(rngs)
        t_1 = (total * (t_2 + ahead)).round().long().clamp_max(total - 1)
        return t_1, torch.full_like(t_1, round(total * t_2))

    def gradient(
        self,
        z0: Tensor,
        noise: Tensor,
        conditioning: Conditioning,
        t_1: Tensor,
        t_2: Tensor,
    ) -> Gradient:
        """Return the gradient for z0 [V, ...] at t_1 > t_2 [V]."""
        return consistency(self.denoiser, self.schedule, z0, noise, conditioning, t_1, t_2, self.omega)


def stage_at(step: int, iterations: int, stages: int) -> tuple[int, float]:
    """Return the number of the stage at iteration `step`, and the share of it that is done, in [0, 1]."""
    progress = min(step / iterations, 1.0) * stages
    index = min(int(progress), stages - 1)
    return index, min(progress - index, 1.0)


def consistency(
    denoiser: Denoiser,
    schedule: Schedule,
    z0: Tensor,
    noise: Tensor,
    conditioning: Conditioning,
    t_1: Tensor,
    t_2: Tensor,
    omega: float,
) -> Gradient:
    """Return eps^omega(z_1, t_1, y) - eps^omega(z_2, t_2, y) for z0 [V, ...] at t_1 > t_2 [V]."""
    z_1 = solver.add_noise(z0, noise, t_1, schedule)
    at_1 = denoiser.guided(z_1, t_1, conditioning, omega).prediction
    # Eq. 11.
    z_2 = solver.step(z_1, at_1, t_1, t_2, schedule)
    at_2 = denoiser.guided(z_2, t_2, conditioning, omega).prediction
    guided = partial(solver.clean, z_1, at_1, t_1, schedule)
    return Gradient(
        parts={"consistency": at_1.eps - at_2.eps},
        times={"t_1": t_1, "t_2": t_2},
        predictions={
            "at t_1, guided": guided,
            "at t_2, guided": partial(solver.clean, z_2, at_2, t_2, schedule),
        },
        imagined=Imagined(guided, t_1),
    )
