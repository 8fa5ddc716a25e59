"""The first-order step that every guidance is made of."""

from __future__ import annotations

import torch
from torch import Tensor

from guidance.contract import Prediction
from guidance.schedule import CLEAN, Schedule


def step(z: Tensor, prediction: Prediction, t: Tensor, u: Tensor, schedule: Schedule) -> Tensor:
    """Move z along the probability-flow ODE from time t to time u, in either direction, holding the prediction fixed.

    DDIM (eta = 0), first-order DPM-Solver, Euler on a flow, their inversions, G_theta (SegmentDreamer Eq. 5) and
    the one-step estimate of the clean sample F_theta (u = CLEAN) are all this map:

        step(z_t, t -> u) = alpha_u clean + sigma_u eps

    It divides by nothing, and is right from alpha_t = 0 on. Diffusion's papers and codes write it without the clean
    sample, which rounds otherwise. Where alpha_t > 0, results of diffusion stay what they were, by the same sum:

        step(z_t, t -> u) = (alpha_u / alpha_t) z_t + (sigma_u - alpha_u sigma_t / alpha_t) eps

    Args:
        z: [V, ...] latents at time t, float32.
        prediction: the prior's at (z, t).
        t, u: [V] integer timesteps on the host; u may be `schedule.CLEAN`.
        schedule: gives alpha and sigma.
    Returns: [V, ...] latents at time u.
    """
    alpha_t, alpha_u, sigma_u = schedule.alpha(t), schedule.alpha(u), schedule.sigma(u)
    signal = alpha_t > 0
    if not (schedule.variance_preserving and bool(signal.any())):
        return mix(alpha_u, prediction.clean, sigma_u, prediction.eps)
    scale = alpha_u / torch.where(signal, alpha_t, 1.0)
    moved = mix(scale, z, sigma_u - scale * schedule.sigma(t), prediction.eps)
    if bool(signal.all()):
        return moved
    return _where(signal, moved, mix(alpha_u, prediction.clean, sigma_u, prediction.eps))


def clean(z: Tensor, prediction: Prediction, t: Tensor, schedule: Schedule) -> Tensor:
    """Return F_theta, the clean sample [V, ...] that a prediction at (z, t) stands for."""
    return step(z, prediction, t, torch.full_like(t, CLEAN), schedule)


def difference(one: Prediction, other: Prediction, t: Tensor, schedule: Schedule) -> Tensor:
    """Return eps of `one` less that of `other` [V, ...], two predictions at the same (z, t).

    Where alpha_t is 0, both are z itself, and it is the clean sample of `other` less that of `one`: the limit of
    sigma_t / alpha_t times the difference in eps, which `weight` expects there.
    """
    signal, found = schedule.alpha(t) > 0, one.eps - other.eps
    return found if bool(signal.all()) else _where(signal, found, other.clean - one.clean)


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
    time), and at most sigma_u^2 / 2, as in LucidDreamer's code. A flow is diffusion in another scale of z_u.
    """
    power = schedule.power(u)
    abar_t, abar_u = schedule.alpha(t) ** 2 / schedule.power(t), schedule.alpha(u) ** 2 / power
    variance = (1 - abar_u) / (1 - abar_t) * (1 - abar_t / abar_u).abs()
    v = torch.minimum(eta * variance, (1 - abar_u) / 2)
    kept = (power * (1 - abar_u - v)).sqrt() - schedule.sigma(u)
    kept, fresh = per_view(torch.cat([kept, (power * v).sqrt()]), z).chunk(2)
    return z + kept * eps + fresh * noise


def _where(which: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Return `one` [V, ...] for the views of `which` [V] (bool, host), and `other` for the rest."""
    return torch.where(per_view(which, one).bool(), one, other)


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
