"""RecDreamer's re-weighting (Zheng et al., ICLR 2025, arXiv 2502.12640) against second faces: no pose is likelier than it should be.

A prior prefers some poses c, mostly the front, whatever view the prompt y names. The re-weighted prior is

    p~(x | y) = p(x | y) r(x, y),    r(x, y) = sum_c q(c) / p(c | y) p(c | x, y)

with a classifier's p(c | x, y), its mean p(c | y) over what the prior shows, and the share q(c) that each pose should have. Where
the classifier is certain, the poses of p~ have the shares q. The noise that p~ predicts at z_t is that of p less
sigma_t grad log r, so that w(t) times it has one part more,

    g_pose = -w(t) sigma_t grad_{z_t} log r  ~  -w(t) (sigma_t / alpha_t) J_D^T grad_x log r(x, y),    x = D(z^_0)

with the clean latents z^_0 that the prior predicts at z_t, and the decoder D.

Taken from the released code (chansey0529/RecDreamer at be5d1ac, `cal_usd_loss` in nerf/sd.py, `update_pc` in
orientation/classifier.py, and the defaults in main.py): r, the classifier on D(z^_0), the weight w(t) sigma_t / alpha_t, p(c | y) as
a running average for each tenth of the times, which begins as q and of which 100 views leave a tenth, the factor of the number of
elements of the latents, and the bound of |g_pose| by |g|. The text of the paper was not at hand, so none of its equations has a number here.

Different here:
    - z^_0 is that of the method's own prediction under the prompt at its t; there it is another one, with noise of its own.
    - Nothing goes back through the network: d z^_0 / d z_t is taken to be 1 / alpha_t, as SDS does. There all of it is differentiated.
    - Each view has its own t and its own log r. There one t and the log of the mean over the views; they run with one view.
    - Averages change once per iteration, after all of its views were weighed, one view after the other.
    - p(c | y) counts as at least 0.001.
    - y names the view, as in all methods here, and Perp-Neg may be on. There y has no view words.
    - Classifiers are others (`guidance.prior.pose_classifiers`). There DINOv2's features are compared with those of pictures that the
      user has sorted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor, nn

from guidance.contract import Gradient, Prior, SeenPoses
from guidance.schedule import Schedule, weight
from guidance.solver import per_view

INTERVALS = 10
"""Parts of the times, each with an average of its own: noisier views show other poses."""
RATE = 1 - 0.1 ** (1 / 100)
"""Share of a view in the average."""
LEAST = 1e-3
"""Least p(c | y)."""


class PoseClassifier(nn.Module):
    """A network that names the pose of what a picture shows.

    Args:
        poses: names of its C poses.
        shares: [C], q(c): the share that each has of views all around; they add up to 1.
    """

    shares: Tensor

    def __init__(self, poses: Sequence[str], shares: Sequence[float]) -> None:
        super().__init__()
        self.poses = tuple(poses)
        self.register_buffer("shares", torch.tensor(shares), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return p(c | x, y) [V, C] of images [V, 3, H, W] in [0, 1]; differentiable."""
        raise NotImplementedError


@dataclass(frozen=True)
class Imbalance:
    """The last views' mean p(c | y) by pose, and its entropy in nats: 1.39 of four even poses."""

    marginal: dict[str, Tensor]
    entropy: Tensor


class PoseRectifier(nn.Module):
    """The re-weighting of one prior.

    Args:
        classifier: frozen.
        strength: the greatest |g_pose| of a view, as a multiple of |g|, the norm of the method's gradient.
        weighting: name of w(t).

    Attributes:
        marginal: [INTERVALS, C], p(c | y): all of its state.
    """

    marginal: Tensor

    def __init__(self, classifier: PoseClassifier, strength: float, weighting: str) -> None:
        super().__init__()
        self.classifier = classifier.eval().requires_grad_(False)
        self.strength, self.weighting = strength, weighting
        shares = classifier.shares
        self.register_buffer("marginal", shares.repeat(INTERVALS, 1), persistent=False)

    def forward(self, wanted: Gradient, prior: Prior) -> tuple[Gradient, SeenPoses]:
        """Return a method's gradient with the part "pose" besides, and the poses that the classifier has seen.

        Raises: ValueError if the method does not name what it has imagined.
        """
        if wanted.imagined is None:
            raise ValueError("rectify_poses needs a method whose Gradient has `imagined`; this one has not.")
        t, clean = wanted.imagined.t, wanted.imagined.clean()
        interval = interval_of(t, prior.schedule).to(clean.device, non_blocking=True)
        marginal = self.marginal[interval]
        # View by view: no graph of more than one is ever held, and a view's bytes do not depend on the others.
        found = [self._of_view(prior, *each) for each in zip(clean.split(1), marginal.split(1))]
        pulls, posteriors = (torch.cat(each) for each in zip(*found))
        schedule = prior.schedule
        at = schedule.with_signal(t)
        factor = weight(self.weighting, at, schedule) * schedule.sigma(at) / schedule.alpha(at)
        whole = reduce(torch.add, wanted.parts.values())
        pose = self.strength * bounded(-per_view(factor, pulls) * pulls, whole)
        return replace(wanted, parts={**wanted.parts, "pose": pose}), SeenPoses(posteriors, interval)

    def _of_view(self, prior: Prior, clean: Tensor, marginal: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient of log r, times the number of elements, for one view's clean latents [1, ...], and p(c | x, y) [1, C]."""
        with torch.enable_grad():
            leaf = clean.detach().requires_grad_()
            posterior = self.classifier(prior.decode(leaf))
            # Multiplied before: half precision could not hold it on its way through the decoder.
            log_r = leaf[0].numel() * log_weight(posterior, marginal, self.classifier.shares)
            [gradient] = torch.autograd.grad(log_r.sum(), leaf)
        return gradient, posterior.detach()

    def add(self, seen: Tensor) -> None:
        """Add the views of an iteration, `packed` [V, C + 1], to the averages, one after the other.

        What is not finite is left out.
        """
        intervals = torch.arange(INTERVALS, device=seen.device)
        for row in seen:
            here = (intervals == row[-1]) & row.isfinite().all()
            moved = torch.lerp(self.marginal, row[:-1].expand_as(self.marginal), RATE)
            self.marginal.copy_(torch.where(here[:, None], moved, self.marginal))

    def imbalance(self, seen: Tensor) -> Imbalance:
        """Describe the averages at the times of views, `packed` [V, C + 1]."""
        mean = self.marginal[seen[:, -1].long()].mean(0)
        return Imbalance(dict(zip(self.classifier.poses, mean.unbind())), torch.special.entr(mean).sum())


def packed(seen: Sequence[SeenPoses]) -> Tensor:
    """Pack what was seen in V views into one tensor [V, C + 1], whose last column is the interval."""
    return torch.cat([torch.cat([each.posterior, each.interval[:, None].float()], 1) for each in seen])


def interval_of(t: Tensor, schedule: Schedule) -> Tensor:
    """Return the interval [V], in 0..INTERVALS - 1, of timesteps t [V] on the host."""
    return (t * INTERVALS // schedule.num_timesteps).clamp(0, INTERVALS - 1)


def log_weight(posterior: Tensor, marginal: Tensor, shares: Tensor) -> Tensor:
    """Return log r [V] of p(c | x, y) [V, C], p(c | y) [V, C] and q(c) [C].

    It is exactly 0, and so is its gradient, where p(c | y) is q(c).
    """
    return torch.log1p(((shares / marginal.clamp_min(LEAST) - 1) * posterior).sum(-1))


def bounded(pull: Tensor, beside: Tensor) -> Tensor:
    """Shorten each view of `pull` [V, ...] that is longer than that of `beside` [V, ...] to its length."""
    dims = tuple(range(1, pull.dim()))
    length, most = (each.square().sum(dims, keepdim=True).sqrt() for each in (pull, beside))
    return pull * (most / length.clamp_min(torch.finfo(pull.dtype).tiny)).clamp_max(1.0)
