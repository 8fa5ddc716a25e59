"""The first-order step that every guidance is made of.

Where alpha_t = 0 (the last timestep of a prior with zero terminal SNR), z_t is the noise itself, without
z_0, and a prior predicts v = alpha_t eps - sigma_t z_0 = -z_0 there: so "eps" below means v for such t.
"""

from __future__ import annotations

import torch
from torch import Tensor

from guidance.schedule import CLEAN, Schedule


def step(z: Tensor, eps: Tensor, t: Tensor, u: Tensor, schedule: Schedule) -> Tensor:
    """Move z along the probability-flow ODE from time t to time u, in either direction, holding eps fixed.

    DDIM (eta = 0), first-order DPM-Solver, DDIM inversion, G_theta (SegmentDreamer Eq. 5) and the one-step
    estimate of the clean sample F_theta (u = CLEAN) are all this map:

        step(z_t, eps, t -> u) = (alpha_u / alpha_t) z_t + (sigma_u - alpha_u sigma_t / alpha_t) eps

    From alpha_t = 0 it is sigma_u z_t - alpha_u v.

    Args:
        z: [V, ...] latents at time t, float32.
        eps: noise predicted at (z, t), shaped like z.
        t, u: [V] integer timesteps on the host; u may be `schedule.CLEAN`.
        schedule: gives alpha and sigma.
    Returns: [V, ...] latents at time u.
    """
    alpha_t, alpha_u = schedule.alpha(t), schedule.alpha(u)
    signal = alpha_t > 0
    scale = torch.where(signal, alpha_u / torch.where(signal, alpha_t, 1.0), schedule.sigma(u))
    shift = torch.where(signal, schedule.sigma(u) - scale * schedule.sigma(t), -alpha_u)
    return mix(scale, z, shift, eps)


def clean(z: Tensor, eps: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """Return F_theta, the clean sample [V, ...] that eps, predicted at (z, t), stands for."""
    return step(z, eps, t, torch.full_like(t, CLEAN), schedule)


def churn(
    z: Tensor,
    eps: Tensor,
    t: Tensor,
    u: Tensor,
    schedule: Schedule,
    *,
    eta: float,
    noise: Tensor,
) -> Tensor:
    """Replace by `noise` a share of the predicted noise in z [V, ...], which `step` moved from t to u.

    z_u + (sqrt(sigma_u^2 - v) - sigma_u) eps + sqrt(v) noise, so that the noise level stays sigma_u. v is eta
    times the variance of DDIM's stochastic step (DDIM Eq. 16; its absolute value, for inversion goes up in
    time), and at most sigma_u^2 / 2, as in LucidDreamer's code.
    """
    abar_t, abar_u = schedule.alpha(t) ** 2, schedule.alpha(u) ** 2
    variance = (1 - abar_u) / (1 - abar_t) * (1 - abar_t / abar_u).abs()
    v = torch.minimum(eta * variance, (1 - abar_u) / 2)
    kept = (1 - abar_u - v).sqrt() - schedule.sigma(u)
    kept, fresh = per_view(torch.cat([kept, v.sqrt()]), z).chunk(2)
    return z + kept * eps + fresh * noise


def eps_of_v(z: Tensor, v: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """Noise prediction [V, ...] that a v-prediction at (z, t) amounts to: eps = alpha_t v + sigma_t z, or v itself
    where alpha_t is 0."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    signal = alpha > 0
    return mix(torch.where(signal, alpha, 1.0), v, torch.where(signal, sigma, 0.0), z)


def noise_of(z: Tensor, eps: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """Return the noise [V, ...] that a prediction at (z, t) stands for: z itself where alpha_t is 0."""
    return _where_no_signal(z, eps, t, schedule)


def prediction_of(clean: Tensor, noise: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """Return the prediction [V, ...] at z_t = alpha_t clean + sigma_t noise that is right for these: -clean where
    alpha_t is 0, the noise elsewhere."""
    return _where_no_signal(-clean, noise, t, schedule)


def _where_no_signal(one: Tensor, other: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """Return `one` [V, ...] for the views where alpha_t is 0, and `other` (broadcastable to it) for the rest."""
    none = schedule.alpha(t) == 0
    if not bool(none.any()):
        return other
    return torch.where(per_view(none, one).bool(), one, other)


def add_noise(z0: Tensor, noise: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """Return z_t = alpha_t z_0 + sigma_t noise, for z0 [V, ...], noise broadcastable to it, t [V] on the host."""
    return mix(schedule.alpha(t), z0, schedule.sigma(t), noise)


def mix(a: Tensor, x: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """Return a x + b y, view by view, for a and b [V] on the host; both go to x's device in one copy."""
    a, b = per_view(torch.cat([a, b]), x).chunk(2)
    return a * x + b * y


def per_view(values: Tensor, like: Tensor) -> Tensor:
    """Host values [V] as a factor [V, 1, ...] for `like` [V, ...], without waiting for the device."""
    shaped = values.reshape(-1, *[1] * (like.dim() - 1))
    return shaped.to(device=like.device, dtype=like.dtype, non_blocking=True)
