"""Sizes of the batches that a run's guidance sends through the U-Net, counted without any network.

A row is a view, or a set of views that the prior sees together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

import guidance
from config import Config
from guidance import Condition, Prediction
from guidance.condition import ORIGINAL
from guidance.prior import LatentPrior
from scene.cameras import sample, view_range_at
from utils.rng import Draws

SAMPLED = 200
"""Iterations that are gone through, spread evenly over the run."""


def batch_shares(config: Config, prior: LatentPrior, views: range, at_once: int) -> dict[int, float]:
    """Return batch size -> its share of the U-Net's calls that record no gradient.

    Counts with the run's own cameras and draws, for these `views` of each iteration, `at_once` at a time. Only the
    schedule of `prior` is used.
    """
    counter, draws, together = _Counter(prior), Draws(config.seed), prior.views_per_set
    guide = guidance.build(config, counter)
    prompts = guidance.embed_prompts(config, counter, together, view_words=not prior.edits)
    last, camera = config.optimization.iterations, config.camera
    for step in range(1, last + 1, -(-last // SAMPLED)):
        view_range = view_range_at(camera, config.optimization, step)
        rng = draws.at("cameras", step)
        cameras = sample(camera, view_range, config.guidance.C_batch_size, rng, views_per_set=together)
        for first in range(0, len(views), at_once):
            some = views[first : first + at_once]
            these = cameras[some.start : some.stop]
            conditioning = prompts.at(these.azimuth, these.polar)
            images = torch.zeros(len(some), 3, 1, 1)
            if prior.edits:
                conditioning = conditioning.with_part(ORIGINAL, counter.encode(images))
            guide(images, conditioning, step - 1, draws.of_sets("timesteps", step, some, together))
    calls = sum(counter.sizes.values())
    return {size: count / calls for size, count in sorted(counter.sizes.items())}


class _Counter:
    """A prior with one number for a latent, and one for a text, that counts the rows of each call."""

    def __init__(self, prior: LatentPrior) -> None:
        self.schedule, self.views_per_set = prior.schedule, prior.views_per_set
        self.sizes: Counter[int] = Counter()

    def embed(self, prompts: Sequence[str]) -> Condition:
        return Condition({"text": torch.zeros(len(prompts), 1, 1)})

    def encode(self, images: Tensor) -> Tensor:
        return images[:: self.views_per_set, :1]

    def decode(self, z: Tensor) -> Tensor:
        return z.repeat_interleave(self.views_per_set, dim=0).expand(-1, 3, -1, -1)

    def predict(self, z: Tensor, t: Tensor, condition: Condition) -> Prediction:
        if not (torch.is_grad_enabled() and z.requires_grad):
            self.sizes[len(z)] += 1
        return Prediction(torch.zeros_like(z), lambda: z)
