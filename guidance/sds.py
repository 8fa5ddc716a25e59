"""Score Distillation Sampling (DreamFusion)."""

from __future__ import annotations

import torch

from config.schema import Config, GuidanceParams
from guidance import base, cfg, solver
from guidance.base import GuidanceOutput, Prior
from guidance.prompts import Conditioning
from guidance.schedule import Schedule, TimeWindow


class SDS:
    """g = w(t) (eps^omega(z_t, t, y) - eps) with z_t = alpha_t z_0 + sigma_t eps, the noise fresh each time.

    The guided prediction is eps^omega = eps_n + omega (eps_y - eps_n), n being the negative (or empty) prompt
    and omega `guidance_scale`; DreamFusion's (1 + omega') eps_y - omega' eps_n is the same with omega =
    1 + omega'. Each view has a timestep of its own.

    Args:
        prior: the diffusion model.
        params: `guidance_scale`, `weighting`, `t_range`, `max_t_range`, `lambda_guidance`, `normalize_grad`.
        warmup_iter: iterations over which the window of t narrows.
    """

    def __init__(self, prior: Prior, params: GuidanceParams, warmup_iter: int) -> None:
        self.prior, self.params = prior, params
        self.schedule = Schedule(prior.alphas_cumprod)
        self.window = TimeWindow.from_fractions(
            params.t_range, params.max_t_range, warmup_iter, self.schedule.num_timesteps
        )

    @classmethod
    def from_config(cls, config: Config, prior: Prior) -> SDS:
        """As the configuration asks."""
        return cls(prior, config.guidance, config.optimization.warmup_iter)

    def __call__(
        self, images: torch.Tensor, conditioning: Conditioning, step: int, rng: torch.Generator
    ) -> GuidanceOutput:
        z0 = self.prior.encode(images)
        t = self.window.draw(step, len(z0), rng)
        with torch.no_grad():
            noise = torch.randn(z0.shape, generator=rng).to(z0)
            z_t = solver.add_noise(z0, noise, t, self.schedule)
            eps_n, eps_y = cfg.predict(self.prior, z_t, t, [conditioning.negative, conditioning.positive])
            guided = cfg.combine(eps_n, eps_y, self.params.guidance_scale)
            w = solver.per_view(base.weight(self.params.weighting, t, self.schedule), z0)
            diagnostics = {
                "t": float(t.double().mean()),
                "unet_evals_per_view": 2.0,
                "grad_norm_denoise": (w * (eps_n - noise)).norm(),
                "grad_norm_guidance": (w * (guided - eps_n)).norm(),
            }
        return base.to_output(z0, w * (guided - noise), self.params, diagnostics)
