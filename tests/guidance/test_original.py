"""The guidance towards an original: InstructPix2Pix's formula, and methods that do not know of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from guidance import Condition, Conditioning, Denoiser, Prediction
from guidance.condition import ORIGINAL
from guidance.denoiser import perpendicular
from guidance.prediction import of_eps
from tests.draws import rngs
from tests.guidance.analytic_prior import PixelPrior
from tests.guidance.cases import CONDITIONINGS, VARIANTS, VIEWS, build, conditionings, latents

SCALE, TIMES = 1.7, torch.tensor([20, 333, 700, 980])


class Editing(PixelPrior):
    """A prior of pixels that draws what it sees to its original."""

    def predict(self, z: Tensor, t: Tensor, condition: Condition) -> Prediction:
        self.evaluations += len(z)
        return of_eps(z, self.noise(z, t, condition), t, self.schedule)

    def noise(self, z: Tensor, t: Tensor, condition: Condition) -> Tensor:
        weights, original = condition.parts.values()
        return self.eps(z + 0.3 * original * z.tanh(), t, weights)


class Composed(Editing):
    """A prior whose every prediction has the guidance towards the original in it."""

    def noise(self, z: Tensor, t: Tensor, condition: Condition) -> Tensor:
        empty = condition.with_part("weights", torch.full_like(condition.parts["weights"], 0.25))
        toward = super().noise(z, t, empty) - super().noise(z, t, empty.without_original())
        return super().noise(z, t, condition) + (SCALE - 1) * toward


def shown(conditioning: Conditioning) -> Conditioning:
    return conditioning.with_part(ORIGINAL, latents(VIEWS, seed=5))


@pytest.mark.parametrize("prompts", CONDITIONINGS)
def test_the_formula(prompts: str) -> None:
    prior, z = Editing(), latents(VIEWS)
    c = shown(conditionings(prior, VIEWS)[prompts])
    for omega in (0.0, 1.0, 7.5):
        found = Denoiser(prior, SCALE).guided(z, TIMES, c, omega, want_n=True, want_empty=True)

        def eps(condition: Condition) -> Tensor:
            return prior.noise(z, TIMES, condition)

        bare = eps(c.negative.without_original())
        n, y = eps(c.negative), eps(c.positive)
        direction = y - n
        for perp in c.perp_negatives if omega else ():
            views = perp.views
            one = prior.noise(z[views], TIMES[views], perp.condition)
            across = perpendicular(one - n[views], (y - n)[views])
            direction = direction.index_add(0, views, perp.weights[:, None, None, None] * across)
        wanted = bare + SCALE * (n - bare) + omega * direction
        torch.testing.assert_close(found.prediction.eps, wanted, rtol=1e-9, atol=1e-9)
        clean = of_eps(z, wanted, TIMES, prior.schedule).clean
        torch.testing.assert_close(found.prediction.clean, clean, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(found.n.eps, bare + SCALE * (n - bare), rtol=1e-9, atol=1e-9)
        nothing, of_it = eps(c.unconditional.without_original()), eps(c.unconditional)
        empty = nothing + SCALE * (of_it - nothing)
        torch.testing.assert_close(found.empty.eps, empty, rtol=1e-9, atol=1e-9)
        alone = Denoiser(prior, SCALE).predict(z, TIMES, c.unconditional)
        torch.testing.assert_close(alone.eps, empty, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_methods_are_those_of_a_prior_that_has_it_in_every_prediction(variant: str) -> None:
    for prompts in ("no negative, plain", "no negative, Perp-Neg"):
        gradients = []
        for prior, scale in ((Editing(), SCALE), (Composed(), 1.0), (Editing(), 1.0)):
            conditioning = shown(conditionings(prior, VIEWS)[prompts])
            images = prior.decode(latents(VIEWS)).requires_grad_()
            guide = build(variant, prior, image_guidance_scale=scale, fix_noise=True)
            output = guide(images, conditioning, 399, rngs(VIEWS))
            output.loss.backward()
            assert float(output.diagnostics["unet_evals_per_view"]) == prior.evaluations / VIEWS
            gradients.append(images.grad)
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-7, atol=1e-7)
        assert not torch.allclose(gradients[0], gradients[2], rtol=1e-3)


def test_nothing_is_predicted_in_vain() -> None:
    """Three rows a view under guidance, two without a prompt, and as many as ever where the scale is 1."""
    prior, z = Editing(), latents(VIEWS)
    c = shown(conditionings(prior, VIEWS)["no negative, plain"])
    for scale, counts in ((SCALE, (3, 2)), (1.0, (2, 1))):
        denoiser = Denoiser(prior, scale)
        denoiser.guided(z, TIMES, c, 7.5)
        assert denoiser.evaluations == counts[0] * VIEWS
        denoiser.evaluations = 0
        denoiser.predict(z, TIMES, c.unconditional)
        assert denoiser.evaluations == counts[1] * VIEWS
