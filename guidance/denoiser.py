"""Classifier-free guidance, Perp-Neg and negative prompts: one implementation for all methods.

All conditions of a call go through the network in one batch, and none that the result does not need. With the
predictions' differences e_i = eps(., i) - eps(., n) from that of the negative (or empty) prompt n,

    eps^omega = eps_n + omega (e_y + sum_i w_i (e_i - <e_i, e_y> / |e_y|^2 e_y))

where the sum is Perp-Neg's (Armandpour et al., 2023), over the negatives of a view with weights w_i <= 0. omega = 1
without negatives is the plain prediction eps_y. DreamFusion writes (1 + omega') eps_y - omega' eps_n: the same with
omega = 1 + omega'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guidance.contract import Prior
from guidance.prompts import Conditioning
from guidance.solver import per_view


@dataclass(frozen=True)
class Guided:
    """Noise predictions at one (z, t), each [V, ...].

    Attributes:
        eps: the guided prediction.
        n: on request, the one under the negative prompt.
        empty: on request, the unconditional one.
    """

    eps: Tensor
    n: Tensor | None = None
    empty: Tensor | None = None


class Denoiser:
    """A prior's noise predictions, counted.

    Attributes:
        prior: the diffusion model.
        evaluations: latents that went through the network since the counter was last set to 0.
    """

    def __init__(self, prior: Prior) -> None:
        self.prior = prior
        self.evaluations = 0

    def eps(self, z: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Predicted noise like z [B, ...] at t [B] (host) given cond [B, L, D]."""
        self.evaluations += len(z)
        return self.prior.eps(z, t, cond)

    def guided(
        self,
        z: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        omega: float,
        *,
        want_n: bool = False,
        want_empty: bool = False,
    ) -> Guided:
        """Predict eps^omega at z [V, ...] and t [V] (host), and on request eps under n and without a prompt."""
        c, views = conditioning, torch.arange(len(z))
        negatives = c.perp_negatives if omega != 0 else ()
        if want_n or omega != 1 or (want_empty and c.negative_is_unconditional):
            with_n = views
        else:
            # eps_n cancels but for Perp-Neg.
            with_n = torch.cat([views[:0], *(negative.views for negative in negatives)]).unique()
        # Whose prediction: the rows of the batch, and the condition of each.
        batch: dict[str, tuple[Tensor, Tensor]] = {}
        if omega != 0:
            batch["y"] = (views, c.positive)
        if len(with_n):
            batch["n"] = (with_n, _rows(c.negative, with_n))
        if want_empty and not c.negative_is_unconditional:
            batch["empty"] = (views, c.unconditional)
        for index, negative in enumerate(negatives):
            batch[f"perp {index}"] = (negative.views, negative.embedding.expand(len(negative.views), -1, -1))
        found = self._predict(z, t, batch)

        n = found.get("n")
        if omega == 0:
            eps = found["n"]
        elif n is None or (omega == 1 and not negatives):
            eps = found["y"]
        else:
            # Views without eps_n have e_y = 0 this way.
            eps_n = n
            if len(n) < len(z):
                eps_n = found["y"].index_copy(0, with_n.to(z.device, non_blocking=True), n)
            direction = e_y = found["y"] - eps_n
            for index, negative in enumerate(negatives):
                rows = negative.views.to(z.device, non_blocking=True)
                across = perpendicular(found[f"perp {index}"] - eps_n[rows], e_y[rows])
                direction = direction.index_add(0, rows, per_view(negative.weights, z) * across)
            eps = eps_n + omega * direction
        return Guided(eps, n if want_n else None, found.get("empty", n) if want_empty else None)

    def _predict(self, z: Tensor, t: Tensor, batch: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        views = [views for views, _ in batch.values()]
        latents = _joined([_rows(z, each) for each in views])
        conditions = _joined([condition for _, condition in batch.values()])
        predicted = self.eps(latents, t[torch.cat(views)], conditions)
        return dict(zip(batch, predicted.split([len(each) for each in views])))


def _rows(tensor: Tensor, views: Tensor) -> Tensor:
    """Rows of tensor [V, ...] that `views` (host, increasing) name, without a copy if these are all."""
    return tensor if len(views) == len(tensor) else tensor[views.to(tensor.device, non_blocking=True)]


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([*parts]) if len(parts) > 1 else parts[0]


def perpendicular(e: Tensor, onto: Tensor) -> Tensor:
    """Remove from e [V, ...] its component along `onto`, view by view."""
    dims = tuple(range(1, e.dim()))
    length = onto.square().sum(dims, keepdim=True).clamp_min(torch.finfo(e.dtype).tiny)
    return e - (e * onto).sum(dims, keepdim=True) / length * onto
