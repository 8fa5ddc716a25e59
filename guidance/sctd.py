"""Segmented Consistency Trajectory Distillation (SegmentDreamer, Algorithm 1), as the paper states it.

(The released code's variant and the true G_theta with its U-Net Jacobian would branch off in `gradient`.)
"""

from __future__ import annotations

import torch

from config.schema import Config, GuidanceParams
from guidance import base, cfg, solver
from guidance.base import GuidanceOutput, Prior
from guidance.prompts import Conditioning
from guidance.schedule import Schedule, SegmentedGrid, TimeWindow


class SCTD:
    """Self-consistency within a segment of the ODE trajectory, and consistency across conditions.

    Every view has a t (and s) of its own: the views still go through the network in one batch, and several
    noise levels per iteration make a steadier gradient than one.

    Args:
        prior: the diffusion model.
        params: `guidance_scale`, `t_threshold`, `t_mode`, `fix_noise`, `noise_seed`, `weighting`, `t_range`,
            `max_t_range`, `lambda_guidance`, `normalize_grad`.
        phase_num: N_s, the number of segments.
        num_ddim_timesteps: the number of solver times; t, s and s_m are among them.
        warmup_iter: iterations over which the window of t narrows.
    Raises: ValueError if the segments are impossible.
    """

    def __init__(
        self,
        prior: Prior,
        params: GuidanceParams,
        *,
        phase_num: int,
        num_ddim_timesteps: int,
        warmup_iter: int,
    ) -> None:
        self.prior, self.params = prior, params
        self.schedule = Schedule(prior.alphas_cumprod)
        total = self.schedule.num_timesteps
        self.grid = SegmentedGrid(
            total,
            num_ddim_timesteps,
            phase_num=phase_num,
            t_mode=params.t_mode,
            t_threshold=params.t_threshold,
            window=TimeWindow.from_fractions(params.t_range, params.max_t_range, warmup_iter, total),
        )
        self._fixed_noise: torch.Tensor | None = None

    @classmethod
    def from_config(cls, config: Config, prior: Prior) -> SCTD:
        """As the configuration asks."""
        return cls(
            prior,
            config.guidance,
            phase_num=config.phase_num,
            num_ddim_timesteps=config.num_ddim_timesteps,
            warmup_iter=config.optimization.warmup_iter,
        )

    def __call__(
        self, images: torch.Tensor, conditioning: Conditioning, step: int, rng: torch.Generator
    ) -> GuidanceOutput:
        z0 = self.prior.encode(images)
        t = self.grid.draw(step, len(z0), rng)
        s_m = self.grid.start_of_segment(t)
        s = self.grid.draw_between(s_m, t, rng)
        with torch.no_grad():
            g_self, g_cross, evals = self.gradient(z0, self._noise(z0, rng), conditioning, s_m, s, t)
            w = solver.per_view(base.weight(self.params.weighting, t, self.schedule), z0)
            diagnostics = {
                "t": float(t.double().mean()),
                "s": float(s.double().mean()),
                "s_m": float(s_m.double().mean()),
                "unet_evals_per_view": evals,
                "grad_norm_self": (w * g_self).norm(),
                "grad_norm_cross": (w * g_cross).norm(),
            }
        return base.to_output(z0, w * (g_self + g_cross), self.params, diagnostics)

    def gradient(
        self,
        z0: torch.Tensor,
        noise: torch.Tensor,
        conditioning: Conditioning,
        s_m: torch.Tensor,
        s: torch.Tensor,
        t: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, float]:
        """The two parts of Eq. 10's gradient with respect to z_0, before w(t), and evaluations per view.

        They are (z_{s_m} - G_s) and (omega + 1)^2 (z_{s_m} - G_y), where the first G_theta of both terms,
        G(z_t, t, empty), is taken to be z_{s_m} (Sec. 4.4). A negative prompt n takes the empty one's place
        in the second term, at the cost of one more evaluation: (omega + 1)^2 (G_n - G_y).
        """
        empty, y, n = conditioning.unconditional, conditioning.positive, conditioning.negative
        # Alg. 1, line 6; Eq. 11: with the empty prompt from s_m to t, through s if t is past the threshold.
        z_sm = solver.add_noise(z0, noise, s_m, self.schedule)
        eps_sm = self.prior.eps(z_sm, s_m, empty)
        z_t = self._step(z_sm, eps_sm, s_m, t)
        two_step = torch.nonzero((t > self.params.t_threshold) & (s > s_m)).squeeze(1)
        if len(two_step):
            s_two, rows = s[two_step], two_step.to(z0.device, non_blocking=True)
            z_s = self._step(z_sm[rows], eps_sm[rows], s_m[two_step], s_two)
            z_t[rows] = self._step(z_s, self.prior.eps(z_s, s_two, empty[rows]), s_two, t[two_step])
        # Alg. 1, lines 8 and 9, with G_theta of Eq. 5.
        eps_y, *eps_n = cfg.predict(self.prior, z_t, t, [y, n] if conditioning.has_negative else [y])
        g_y = self._step(z_t, eps_y, t, s_m)
        z_s_hat = self._step(z_t, eps_y, t, s)
        g_s = self._step(z_s_hat, self.prior.eps(z_s_hat, s, empty), s, s_m)
        origin = self._step(z_t, eps_n[0], t, s_m) if eps_n else z_sm
        strength = (self.params.guidance_scale + 1) ** 2
        evals = 3 + len(two_step) / len(t) + len(eps_n)
        return z_sm - g_s, strength * (origin - g_y), evals

    def _step(
        self, z: torch.Tensor, eps: torch.Tensor, start: torch.Tensor, end: torch.Tensor
    ) -> torch.Tensor:
        return solver.step(z, eps, start, end, self.schedule)

    def _noise(self, z0: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """eps*: one noise for all views and iterations (Sec. 4.2); without `fix_noise` fresh ones."""
        if not self.params.fix_noise:
            return torch.randn(z0.shape, generator=rng).to(z0)
        if self._fixed_noise is None:
            seeded = torch.Generator().manual_seed(self.params.noise_seed)
            self._fixed_noise = torch.randn(z0.shape[1:], generator=seeded).to(z0)
        return self._fixed_noise
