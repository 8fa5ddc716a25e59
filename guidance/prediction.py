"""What a network's answer stands for: noise and clean sample, by what it was trained to predict."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from guidance.contract import Prediction
from guidance.schedule import Schedule
from guidance.solver import mix


def of_eps(z: Tensor, eps: Tensor, t: Tensor, schedule: Schedule) -> Prediction:
    """Read a prediction of the noise. It gives no clean sample where alpha_t is 0."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return Prediction(eps, lambda: mix(1 / alpha, z, -sigma / alpha, eps))


def of_v(z: Tensor, v: Tensor, t: Tensor, schedule: Schedule) -> Prediction:
    """Read diffusion's v = alpha_t eps - sigma_t z_0."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return Prediction(mix(alpha, v, sigma, z), lambda: mix(alpha, z, -sigma, v))


def of_flow(z: Tensor, v: Tensor, t: Tensor, schedule: Schedule) -> Prediction:
    """Read the velocity of a rectified flow, v = eps - z_0."""
    sigma = schedule.sigma(t)
    one = sigma.new_ones(len(sigma))
    return Prediction(mix(one, z, 1 - sigma, v), lambda: mix(one, z, -sigma, v))


def of_clean(z: Tensor, clean: Tensor, t: Tensor, schedule: Schedule) -> Prediction:
    """Read a prediction of the clean sample. It gives no noise where sigma_t is 0."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return Prediction(mix(1 / sigma, z, -alpha / sigma, clean), lambda: clean)


KINDS: dict[str, Callable[[Tensor, Tensor, Tensor, Schedule], Prediction]] = {
    "epsilon": of_eps,
    "v_prediction": of_v,
    "flow": of_flow,
    "sample": of_clean,
}
"""What a network predicts -> reader of its answer [B, ...] at latents z [B, ...] and timesteps t [B] (host)."""
