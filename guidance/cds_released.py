"""Consistency Distillation Sampling as Consistent3D's released code and its files compute it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from config.schema import Config
from guidance import solver
from guidance.cds import consistency, stage_at
from guidance.contract import Gradient
from guidance.denoiser import Denoiser
from guidance.noise import Noise
from guidance.prompts import Conditioning
from utils.rng import integers


@dataclass(frozen=True)
class ReleasedStage:
    """A file of Consistent3D, in fractions of T.

    Attributes:
        t_max, t_min: where t_2 starts and ends (`cur_steps`).
        delta, Delta: bounds of t_1 - t_2, the upper one excluded (`end_gap`, `perturb_factor`).
        lowest, highest: bounds of t_1 (`min_sigma_percent`, `max_sigma_percent`); t_2 ends `delta` before.
        kept: the share of omega that is left at the end (`guidance_scale`).
        power: that of sigma in w(t_1): 0 for `uniform`, 2 for `sds` (`weighting_strategy`).
    """

    t_max: float
    t_min: float
    delta: float
    Delta: float
    lowest: float
    highest: float
    kept: float
    power: int


COARSE = ReleasedStage(0.7, 0.1, 0.1, 0.3, lowest=0.1, highest=0.98, kept=0.5, power=0)
REFINE = ReleasedStage(0.3, 0.02, 0.1, 0.2, lowest=0.02, highest=0.5, kept=0.3, power=2)
STAGES = {"coarse": (COARSE,), "refine": (REFINE,), "both": (COARSE, REFINE)}
"""`cds_stage` -> configs/consistency-coarse.yaml and configs/consistency-refine.yaml.

The names in brackets are keys there, at commit 068d97e of sail-sg/Consistent3D. What they mean is in
threestudio/models/guidance/stable_diffusion_guidance.py: `update_step`, `__call__`, `compute_grad_consistency`.
"""

CLIP = (2.0, 8.0)
"""Bound of every element of the gradient at the start and at the end of a stage (`grad_clip`)."""


class ReleasedCDS:
    """The released gradient, w(t_1) (eps^omega(z_1, t_1, y) - eps^omega(z_2, t_2, y)), clamped.

    Over a stage t_2 falls with the root of the progress, cut to a whole timestep; omega falls from
    `guidance_scale` and the bound of the elements rises, both evenly. omega is less by 1 there:
    eps_y + omega (eps_y - eps_n). Four U-Net evaluations per view.

    Differences from the released code: the sum over the views is not divided by their number, and Perp-Neg
    works here.
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
        return self.gradient(z0, self.noise(z0, rngs), conditioning, t_1, t_2, step)

    def times(self, step: int, rngs: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
        """Draw t_1 and t_2 [V] at iteration `step`."""
        stage, progress = self._at(step)
        lowest, highest, start, end, least, most = (
            round(self.schedule.num_timesteps * share)
            for share in (stage.lowest, stage.highest, stage.t_max, stage.t_min, stage.delta, stage.Delta)
        )
        t_2 = int(start + (end - start) * math.sqrt(progress))
        t_2 = min(max(t_2, lowest), highest - least)
        t_1 = (t_2 + integers(least, most - 1, rngs)).clamp(lowest, highest)
        return t_1, torch.full_like(t_1, t_2)

    def gradient(
        self,
        z0: Tensor,
        noise: Tensor,
        conditioning: Conditioning,
        t_1: Tensor,
        t_2: Tensor,
        step: int,
    ) -> Gradient:
        """Return the gradient of iteration `step` for z0 [V, ...] at t_1 > t_2 [V]."""
        stage, progress = self._at(step)
        omega = 1 + self.omega * (1 + (stage.kept - 1) * progress)
        found = consistency(self.denoiser, self.schedule, z0, noise, conditioning, t_1, t_2, omega)
        w = solver.per_view(self.schedule.sigma(t_1) ** stage.power, z0)
        bound = CLIP[0] + (CLIP[1] - CLIP[0]) * progress
        parts = {name: (w * part).clamp(-bound, bound) for name, part in found.parts.items()}
        return replace(found, parts=parts)

    def _at(self, step: int) -> tuple[ReleasedStage, float]:
        index, progress = stage_at(step, self.iterations, len(self.stages))
        return self.stages[index], progress
