"""Classifier-free guidance, Perp-Neg and negative prompts: one implementation for all methods.

All conditions of a call go through the network in one batch, and none that the result does not need. With the
predictions' differences e_i = eps(., i) - eps(., n) from that of the negative (or empty) prompt n,

    eps^omega = eps_n + omega (e_y + sum_i w_i (e_i - <e_i, e_y> / |e_y|^2 e_y))

where the sum is Perp-Neg's (Armandpour et al., 2023), over the negatives of a view with weights w_i <= 0. omega = 1
without negatives is the plain prediction eps_y. DreamFusion writes (1 + omega') eps_y - omega' eps_n: the same with
omega = 1 + omega'. All of it is linear, so that clean samples are guided in the same way.

A prior that edits is shown an original I besides, and has a second guidance, of scale s (InstructPix2Pix's Eq. 3):

    eps^omega = eps(none, n) + s (eps(I, n) - eps(none, n)) + omega (eps(I, y) - eps(I, n))

It is the first formula for eps'(i) = eps(I, i) + (s - 1) (eps(I, n) - eps(none, n)) in place of every eps(., i). That is what
this class predicts then, with and without a prompt, so that no method knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from guidance.condition import ORIGINAL, Condition
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

    Args:
        image_scale: s, for conditions that show an original.

    Attributes:
        prior: the diffusion model.
        evaluations: latents that went through the network since the counter was last set to 0.
    """

    def __init__(self, prior: Prior, image_scale: float = 1.0) -> None:
        self.prior, self.image_scale = prior, image_scale
        self.evaluations = 0

    def predict(self, z: Tensor, t: Tensor, condition: Condition) -> Prediction:
        """Prediction at z [B, ...] and t [B] (host) under B conditions; where they show an original, each is its own n."""
        if not self._guides_by_original(condition):
            return self._asked(z, t, condition)
        rows = torch.arange(len(z))
        found = self._predict(z, t, {"n": (rows, condition), "bare n": (rows, condition.without_original())})
        return _by_original(found, self.image_scale, {"n": rows})["n"]

    def _asked(self, z: Tensor, t: Tensor, condition: Condition) -> Prediction:
        self.evaluations += len(z)
        return self.prior.predict(z, t, condition)

    def _guides_by_original(self, condition: Condition) -> bool:
        """Return whether an original guides: at s = 1 what has none cancels."""
        return ORIGINAL in condition.parts and self.image_scale != 1

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
        by_original = self._guides_by_original(c.positive)
        if want_n or omega != 1 or by_original or (want_empty and c.negative_is_unconditional):
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
        bases = [name for name in ("n", "empty") if name in batch] if by_original else []
        for name in bases:
            rows, condition = batch[name]
            batch[f"bare {name}"] = (rows, condition.without_original())
        found = self._predict(z, t, batch)
        if by_original:
            found = _by_original(found, self.image_scale, {name: rows for name, (rows, _) in batch.items()})

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
        predicted = self._asked(latents, t[torch.cat(views)], conditions)
        sizes = [len(each) for each in views]
        parts = enumerate(zip(batch, predicted.eps.split(sizes)))
        return {name: Prediction(eps, partial(_clean_part, predicted, sizes, i)) for i, (name, eps) in parts}


def _clean_part(prediction: Prediction, sizes: list[int], index: int) -> Tensor:
    return prediction.clean.split(sizes)[index]


def _by_original(
    found: dict[str, Prediction], scale: float, rows: dict[str, Tensor]
) -> dict[str, Prediction]:
    """Return the predictions eps'(i) by condition; that without a prompt is its own n.

    Args:
        found: eps(I, i) by condition, and of "n" and "empty" also eps(none, i), "bare n" and "bare empty", for all views.
        rows: the views (host) of each.
    """

    def moved(name: str) -> Prediction:
        base = "empty" if name == "empty" else "n"

        def part(of: Callable[[Prediction], Tensor]) -> Tensor:
            toward = _rows(of(found[base]) - of(found[f"bare {base}"]), rows[name])
            return of(found[name]) + (scale - 1) * toward

        return Prediction(part(lambda each: each.eps), lambda: part(lambda each: each.clean))

    return {name: moved(name) for name in found if not name.startswith("bare ")}


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
