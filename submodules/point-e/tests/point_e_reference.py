"""Point-E in plain functions over a state dict, to compare the package with: float64, a loop for every sum that can be.

Nichol et al., "Point-E" (2022): the transformer; Karras et al., "Elucidating the Design Space of Diffusion-Based
Generative Models" (2022, EDM): Eq. 5 and Algorithm 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

State = Mapping[str, Tensor]
SCALES = (2, 2, 2, 0.007843137255, 0.007843137255, 0.007843137255)
"""Factors into [-1, 1]: of positions in a cube of side 1, and of colours, 1 / 127.5 as published."""
BIASES = (0, 0, 0, -1, -1, -1)


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return torch.einsum("...i,oi->...o", x, state[f"{name}.weight"]) + state[f"{name}.bias"]


def layer_norm(state: State, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    normal = centred / ((centred**2).mean(-1, keepdim=True) + 1e-5).sqrt()
    return normal * state[f"{name}.weight"] + state[f"{name}.bias"]


def mlp(state: State, name: str, x: Tensor) -> Tensor:
    h = linear(state, f"{name}.c_fc", x)
    return linear(state, f"{name}.c_proj", h * (1 + torch.erf(h / math.sqrt(2))) / 2)


def attention(state: State, name: str, x: Tensor, heads: int) -> Tensor:
    """Attention head by head; a head's query, key and value are consecutive rows of c_qkv."""
    qkv = linear(state, f"{name}.c_qkv", x)
    size = qkv.shape[-1] // (3 * heads)
    answers = []
    for head in range(heads):
        q, k, v = (qkv[..., (3 * head + part) * size :][..., :size] for part in range(3))
        scores = torch.einsum("bqc,bkc->bqk", q, k) / math.sqrt(size)
        weights = torch.exp(scores - scores.amax(-1, keepdim=True))
        answers.append(torch.einsum("bqk,bkc->bqc", weights / weights.sum(-1, keepdim=True), v))
    return linear(state, f"{name}.c_proj", torch.cat(answers, dim=-1))


def transformer(
    state: State,
    heads: int,
    x: Tensor,
    t: Tensor,
    vector: Tensor | None = None,
    grid: Tensor | None = None,
    coarse: Tensor | None = None,
) -> Tensor:
    """Noise and variance [B, N, 12] of x [B, N, 6] at steps t [B].

    They are conditioned by a CLIP vector [B, D], a grid of CLIP tokens [B, L, D] and a coarse cloud [B, M, 6]
    in its own units.
    """
    width = state["input_proj.weight"].shape[0]
    angles = torch.stack([t * 10000 ** (-i / (width / 2)) for i in range(width // 2)], dim=-1)
    tokens = [mlp(state, "time_embed", torch.cat([angles.cos(), angles.sin()], dim=-1))[:, None]]
    if vector is not None:
        tokens.insert(0, linear(state, "clip_embed", math.sqrt(vector.shape[-1]) * vector)[:, None])
    if grid is not None:
        tokens.append(linear(state, "clip_embed.1", layer_norm(state, "clip_embed.0", grid)))
    if coarse is not None:
        tokens.append(
            linear(state, "cond_point_proj", coarse * coarse.new_tensor(SCALES) + coarse.new_tensor(BIASES))
        )
    tokens.append(linear(state, "input_proj", x))
    h = layer_norm(state, "ln_pre", torch.cat(tokens, dim=1))
    layers = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("backbone.resblocks."))
    for layer in range(layers):
        block = f"backbone.resblocks.{layer}"
        h = h + attention(state, f"{block}.attn", layer_norm(state, f"{block}.ln_1", h), heads)
        h = h + mlp(state, f"{block}.mlp", layer_norm(state, f"{block}.ln_2", h))
    return linear(state, "output_proj", layer_norm(state, "ln_post", h)[:, -x.shape[1] :])


def alphas_cumprod(schedule: str, steps: int = 1024) -> list[float]:
    def f(s: float) -> float:
        return math.cos((s + 0.008) / 1.008 * math.pi / 2) ** 2

    product, products = 1.0, []
    for i in range(steps):
        if schedule == "cosine":
            beta = min(1 - f((i + 1) / steps) / f(i / steps), 0.999)
        else:
            beta = 1000 / steps * (1e-4 + (0.02 - 1e-4) * i / (steps - 1))
        product *= 1 - beta
        products.append(product)
    return products


def timestep_of(sigma: float, abar: Sequence[float]) -> int:
    """The last step whose abar_t is not below 1/(σ² + 1), which is where the floor of the interpolated t lies."""
    return max([t for t, a in enumerate(abar) if a >= 1 / (sigma**2 + 1)], default=0)


def karras_sigmas(count: int, low: float, high: float, rho: float = 7) -> list[float]:
    """Noise levels by EDM Eq. 5, then 0."""
    ends = high ** (1 / rho), low ** (1 / rho)
    return [(ends[0] + i / (count - 1) * (ends[1] - ends[0])) ** rho for i in range(count)] + [0.0]


def predict(
    eps: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma: float, abar: Sequence[float]
) -> Tensor:
    """Estimate x0 within the cube, of points x = x0 + σ n."""
    t = timestep_of(sigma, abar)
    x_t = x / math.sqrt(sigma**2 + 1)
    noise = eps(x_t, torch.full(x.shape[:1], t, dtype=x.dtype))
    return ((x_t - math.sqrt(1 - abar[t]) * noise) / math.sqrt(abar[t])).clamp(-1, 1)


def heun(
    denoise: Callable[[Tensor, float], Tensor],
    start: Tensor,
    sigmas: Sequence[float],
    s_churn: float,
    noises: Iterator[Tensor],
) -> Tensor:
    """Solve by EDM Algorithm 2 from σ_max start; a fresh noise for every step that churns."""
    gamma = min(s_churn / (len(sigmas) - 1), math.sqrt(2) - 1)
    x = sigmas[0] * start
    for now, after in pairwise(sigmas):
        hat = now + gamma * now
        if gamma > 0:
            x = x + math.sqrt(hat**2 - now**2) * next(noises)
        slope = (x - denoise(x, hat)) / hat
        ahead = x + (after - hat) * slope
        if after > 0:
            slope = (slope + (ahead - denoise(ahead, after)) / after) / 2
            ahead = x + (after - hat) * slope
        x = ahead
    return x
