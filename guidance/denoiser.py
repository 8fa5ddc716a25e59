"""Classifier-free guidance, Perp-Neg and negative prompts: one implementation for all methods.

All conditions of a call go through the network in one batch, and none that the result does not need. With the
predictions' differences e_i = eps(., i) - eps(., n) from that of the negative (or empty) prompt n,

    eps^omega = eps_n + omega (e_y + sum_i w_i (e_i - <e_i, e_y> / |e_y|^2 e_y))

where the sum is Perp-Neg's (Armandpour et al., 2023), over the negatives of a view with weights w_i <= 0. omega = 1
without negatives is the plain prediction eps_y. DreamFusion writes (1 + omega') eps_y - omega' eps_n: the same with
omega = 1 + omega'. All of it is linear, so that clean samples are guided in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from guidance.condition import Condition
from guidance.contract import Prediction, Prior
from guidance.prompts import Conditioning, PerpNegative
from guidance.solver import per_view


@dataclass(frozen=True)
class Guided:
    """Predictions at one (z, t), each of V views.

    Attributes:
        prediction: the guided one.
        n: on request, the one under the negative prompt.
        empty: on request, the unconditional one.
    """

    prediction: Prediction
    n: Prediction | None = None
    empty: Prediction | None = None


class Denoiser:
    """A prior's predictions, counted.

    Attributes:
        prior: the diffusion model.
        evaluations: latents that went through the network since the counter was last set to 0.
    """

    def __init__(self, prior: Prior) -> None:
        self.prior = prior
        self.evaluations = 0

    def predict(self, z: Tensor, t: Tensor, condition: Condition) -> Prediction:
        """Prediction at z [B, ...] and t [B] (host) under B conditions."""
        self.evaluations += len(z)
        return self.prior.predict(z, t, condition)

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
        """Predict with guidance at z [V, ...] and t [V] (host), and on request under n and without a prompt."""
        c, views = conditioning, torch.arange(len(z))
        negatives = c.perp_negatives if omega != 0 else ()
        if want_n or omega != 1 or (want_empty and c.negative_is_unconditional):
            with_n = views
        else:
            # eps_n cancels but for Perp-Neg.
            with_n = torch.cat([views[:0], *(negative.views for negative in negatives)]).unique()
        # Whose prediction: the rows of the batch, and the condition of each.
        batch: dict[str, tuple[Tensor, Condition]] = {}
        if omega != 0:
            batch["y"] = (views, c.positive)
        if len(with_n):
            batch["n"] = (with_n, c.negative.rows(with_n))
        if want_empty and not c.negative_is_unconditional:
            batch["empty"] = (views, c.unconditional)
        for index, negative in enumerate(negatives):
            batch[f"perp {index}"] = (negative.views, negative.condition)
        found = self._predict(z, t, batch)

        def guided(part: Callable[[Prediction], Tensor]) -> Tensor:
            return _guided({name: part(each) for name, each in found.items()}, omega, with_n, negatives)

        whole = Prediction(guided(lambda each: each.eps), lambda: guided(lambda each: each.clean))
        n = found.get("n")
        return Guided(whole, n if want_n else None, found.get("empty", n) if want_empty else None)

    def _predict(
        self, z: Tensor, t: Tensor, batch: dict[str, tuple[Tensor, Condition]]
    ) -> dict[str, Prediction]:
        views = [views for views, _ in batch.values()]
        latents = _joined([_rows(z, each) for each in views])
        conditions = Condition.cat([condition for _, condition in batch.values()])
        predicted = self.predict(latents, t[torch.cat(views)], conditions)
        sizes = [len(each) for each in views]
        parts = enumerate(zip(batch, predicted.eps.split(sizes)))
        return {name: Prediction(eps, partial(_clean_part, predicted, sizes, i)) for i, (name, eps) in parts}


def _clean_part(prediction: Prediction, sizes: list[int], index: int) -> Tensor:
    return prediction.clean.split(sizes)[index]


def _guided(
    found: dict[str, Tensor], omega: float, with_n: Tensor, negatives: Sequence[PerpNegative]
) -> Tensor:
    """Return the guided one of predictions by condition, all of the noise or all of the clean sample.

    Args:
        with_n: the views (host) that `n` was predicted for.
    """
    n, y = found.get("n"), found.get("y")
    if y is None:
        assert n is not None
        return n
    if n is None or (omega == 1 and not negatives):
        return y
    # Views without n have e_y = 0 this way.
    base = n
    if len(n) < len(y):
        base = y.index_copy(0, with_n.to(y.device, non_blocking=True), n)
    direction = e_y = y - base
    for index, negative in enumerate(negatives):
        rows = negative.views.to(y.device, non_blocking=True)
        across = perpendicular(found[f"perp {index}"] - base[rows], e_y[rows])
        direction = direction.index_add(0, rows, per_view(negative.weights, y) * across)
    return base + omega * direction


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
