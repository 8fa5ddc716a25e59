"""A prior whose optimal noise prediction is known in closed form: data from a mixture of isotropic Gaussians.

With z_0 ~ sum_k pi_k N(mu_k, s^2 I), the noised density is p_t(z) = sum_k pi_k N(z; alpha mu_k, v_t I) with
v_t = alpha^2 s^2 + sigma^2, and

    eps(z, t) = -sigma grad log p_t(z) = sigma sum_k r_k(z) (z - alpha mu_k) / v_t

where r_k is the posterior probability of mode k. The clean sample to expect is sum_k r_k (mu_k + alpha s^2 / v_t (z -
alpha mu_k)), which divides by nothing. A condition is a mixture's weights pi [B, 1, K].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from guidance.condition import Condition
from guidance.contract import Prediction
from guidance.prediction import KINDS
from guidance.prompts import Conditioning, PerpNegative
from guidance.schedule import Schedule
from guidance.solver import per_view

MODES_PER_CLASS = 2


def stable_diffusion_alphas() -> Tensor:
    """Return abar_t [1000] of Stable Diffusion's `scaled_linear` betas from 0.00085 to 0.012."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0)


class AnalyticPrior:
    """Two classes of two modes each in latents [B, 4, 4, 4]; images are the latents themselves.

    kind: what its network predicts, which is turned into a prediction as the priors' networks' answers are.
    """

    views_per_set = 1

    def __init__(
        self,
        *,
        spread: float = 0.2,
        seed: int = 0,
        kind: str = "epsilon",
        schedule: Schedule | None = None,
        steps_offset: int = 1,
    ) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.schedule = schedule or Schedule.diffusion(stable_diffusion_alphas(), steps_offset)
        self.kind = kind
        self.modes = torch.randn(2 * MODES_PER_CLASS, 64, generator=rng)
        self.spread = spread
        self.evaluations = 0
        self.calls: list[tuple[int, Tensor]] = []

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, z: Tensor) -> Tensor:
        return z

    def predict(self, z: Tensor, t: Tensor, condition: Condition) -> Prediction:
        self.evaluations += len(z)
        self.calls.append((len(z), t))
        return KINDS[self.kind](z, self.answer(z, t, condition.parts["weights"]), t, self.schedule)

    def eps(self, z: Tensor, t: Tensor, weights: Tensor) -> Tensor:
        """The noise to expect at z [B, ...] and t [B] under mixtures' weights [B, 1, K]."""
        return self.truth(z, t, weights)[0]

    def answer(self, z: Tensor, t: Tensor, weights: Tensor) -> Tensor:
        """The network's answer, of `kind`."""
        eps, clean = self.truth(z, t, weights)
        alpha, sigma = (per_view(f(t), z) for f in (self.schedule.alpha, self.schedule.sigma))
        said = {"epsilon": eps, "v_prediction": alpha * eps - sigma * clean, "flow": eps - clean}
        return {**said, "sample": clean}[self.kind]

    def truth(self, z: Tensor, t: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The noise and the clean sample to expect."""
        flat = z.flatten(1)
        alpha, sigma = (per_view(f(t), flat) for f in (self.schedule.alpha, self.schedule.sigma))
        variance = alpha**2 * self.spread**2 + sigma**2
        offsets = flat[:, None] - alpha[..., None] * self.modes.to(z)
        logits = weights[:, 0].to(z).log() - offsets.square().sum(-1) / (2 * variance)
        share = logits.softmax(-1)
        mean_offset = (share[..., None] * offsets).sum(1)
        clean = share @ self.modes.to(z) + alpha * self.spread**2 / variance * mean_offset
        return (sigma * mean_offset / variance).reshape(z.shape), clean.reshape(z.shape)

    def posterior(self, z0: Tensor, wanted: int) -> Tensor:
        """Return p(class | z_0) [B] of the class `wanted`, with both classes equally likely beforehand."""
        distance = (z0.flatten(1)[:, None] - self.modes.to(z0)).square().sum(-1)
        probability = (-distance / (2 * self.spread**2)).softmax(-1)
        return probability.reshape(len(z0), 2, MODES_PER_CLASS).sum(-1)[:, wanted]

    def conditioning(
        self, wanted: int, count: int, *, negative: bool = False, perp_neg: bool = False
    ) -> Conditioning:
        """Conditioning with y = the class `wanted`, n = the other class (if `negative`), no prompt = both classes.

        Perp-Neg's negatives (if `perp_neg`) are the class mostly in its one mode and mostly in its other, as seen
        from another side. Each counts for some views; some views have both and some none.
        """
        both = torch.full((1, 1, 2 * MODES_PER_CLASS), 1 / (2 * MODES_PER_CLASS))
        classes = torch.zeros(2, 1, 2 * MODES_PER_CLASS)
        for name in (0, 1):
            classes[name, 0, name * MODES_PER_CLASS : (name + 1) * MODES_PER_CLASS] = 1 / MODES_PER_CLASS
        positive, other = classes[wanted : wanted + 1], classes[1 - wanted : 2 - wanted]
        first, second = (
            _condition(positive * torch.tensor(share).repeat(2)) for share in ([1.8, 0.2], [0.4, 1.6])
        )
        views = torch.arange(count)
        thirds, odd = views[views % 3 == 0], views[views % 2 == 1]
        perp_negatives = (
            PerpNegative(thirds, -0.5 - thirds / count, first.expand(len(thirds))),
            PerpNegative(odd, -1.5 + odd / count, second.expand(len(odd))),
        )
        return Conditioning(
            positive=_condition(positive).expand(count),
            negative=_condition(other if negative else both).expand(count),
            unconditional=_condition(both).expand(count),
            has_negative=negative,
            negative_is_unconditional=not negative,
            perp_negatives=perp_negatives if perp_neg else (),
        )


def _condition(weights: Tensor) -> Condition:
    return Condition({"weights": weights})


class PixelPrior(AnalyticPrior):
    """Prior whose latents are half the logits of the images [V, 4, 4, 4] with values in (0, 1).

    The modes overlap, so that every prompt counts everywhere.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(spread=1.0, **settings)
        self.modes *= 0.3

    def encode(self, images: Tensor) -> Tensor:
        return torch.logit(images) / 2

    def decode(self, z: Tensor) -> Tensor:
        return torch.sigmoid(2 * z)
