"""Evaluations of the U-Net by every method: counted truly, none twice, none in vain."""

from __future__ import annotations

import pytest
from torch import Tensor

from guidance import Guidance
from guidance.prompts import Conditioning
from tests.draws import rngs
from tests.guidance.analytic_prior import PixelPrior
from tests.guidance.cases import CONDITIONINGS, VARIANTS, VIEWS, build, conditionings, latents


class WatchedPrior(PixelPrior):
    """Prior that remembers every row of every call, and disturbs the prediction of one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[tuple[bytes, int, bytes]]] = []
        self.disturbed: int | None = None

    def answer(self, z: Tensor, t: Tensor, weights: Tensor) -> Tensor:
        eps = super().answer(z, t, weights)
        first = sum(map(len, self.rows))
        if self.disturbed is not None and first <= self.disturbed < first + len(z):
            eps = eps.clone()
            eps[self.disturbed - first] += 0.1 * latents(1, seed=7)[0]
        self.rows.append(
            [(a.detach().numpy().tobytes(), int(b), c.numpy().tobytes()) for a, b, c in zip(z, t, weights)]
        )
        return eps


def evaluate(
    guide: Guidance, conditioning: Conditioning, step: int, disturbed: int | None = None
) -> tuple[Tensor, int]:
    """Watch a call; return the gradient with respect to the images, and the reported number of evaluations."""
    prior = guide.denoiser.prior
    assert isinstance(prior, WatchedPrior)
    prior.rows, prior.disturbed = [], disturbed
    images = prior.decode(latents(VIEWS)).requires_grad_()
    output = guide(images, conditioning, step, rngs(VIEWS, step))
    output.loss.backward()
    assert images.grad is not None
    return images.grad, round(VIEWS * float(output.diagnostics["unet_evals_per_view"]))


def check(variant: str, prompts: str, **changes: object) -> None:
    """Check that the rows that went through are reported, that each is there once, and each changes the gradient."""
    prior = WatchedPrior()
    guide = build(variant, prior, **{"fix_noise": True, **changes})
    conditioning = conditionings(prior, VIEWS)[prompts]
    plain, reported = evaluate(guide, conditioning, step=399)
    calls = prior.rows
    rows = [row for call in calls for row in call]
    assert reported == len(rows)
    assert len(set(rows)) == len(rows), "the same prediction twice"
    places = [{(z, t) for z, t, _ in call} for call in calls]
    assert len(set().union(*places)) == sum(map(len, places)), "conditions of one (z, t) in two calls"
    for row in range(len(rows)):
        changed, _ = evaluate(guide, conditioning, step=399, disturbed=row)
        assert float((changed - plain).abs().max()) > 1e-9, f"row {row} of {len(rows)} changes nothing"


@pytest.mark.parametrize("omega", [0.0, 1.0, 7.5])
@pytest.mark.parametrize("prompts", CONDITIONINGS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_evaluation_counts(variant: str, prompts: str, omega: float) -> None:
    check(variant, prompts, guidance_scale=omega)


@pytest.mark.parametrize(
    ("variant", "changes"),
    [
        ("ism", {"xs_delta_t": 60, "denoise_guidance_scale": 2.0}),
        ("gcs", {"w_cc": 0.0}),
        ("gcs", {"w_gc": 0.0, "rgb_scale": 0.0}),
        ("gcs", {"w_cc": 0.0, "w_gc": 0.0, "guidance_scale": 1.0}),
        ("gcs", {"w_cp": 0.0, "guidance_scale": 1.0}),
        ("sctd", {"phase_num": 50}),
        ("sctd", {"t_threshold": 1000, "w_self": 0.0}),
        ("sctd released", {"w_cp": 0.7}),
        ("sctd released", {"phase_num": 400, "num_ddim_timesteps": 1000, "delta_t": 0}),
        ("sctd exact", {"phase_num": 50}),
        ("sctd exact", {"w_self": 0.0}),
    ],
)
def test_every_evaluation_counts_under_other_settings(variant: str, changes: dict[str, object]) -> None:
    for prompts in ("no negative, plain", "negative, Perp-Neg"):
        check(variant, prompts, **changes)


@pytest.mark.parametrize(
    ("variant", "changes", "evaluations"),
    [
        ("sds", {}, 2),
        ("sds", {"guidance_scale": 1.0}, 1),
        ("ism", {"t_range": [0.5, 0.5001], "delta_t": 80}, 3 + 3),
        ("ism", {"t_range": [0.5, 0.5001], "delta_t": 80, "xs_inv_steps": 2}, 2 + 3),
        ("cds", {}, 4),
        ("cds released", {}, 4),
        ("gcs", {}, 7),
        ("gcs", {"w_gc": 0.0, "w_cp": 0.0}, 5),
        ("sctd", {"t_threshold": 1}, 4),
        ("sctd", {"t_threshold": 1000}, 3),
        ("sctd", {"phase_num": 50}, 2),
        ("sctd exact", {"t_threshold": 1}, 5),
        ("sctd exact", {"t_threshold": 1000}, 4),
        ("sctd released", {"t_threshold": 1}, 5),
        ("sctd released", {"t_threshold": 1000}, 4),
        ("sctd released", {"t_threshold": 1, "w_cp": 0.7}, 7),
    ],
)
def test_evaluations_per_view(variant: str, changes: dict[str, object], evaluations: int) -> None:
    """The grid's time t = 281 has others between it and its segment's start."""
    prior = PixelPrior()
    if variant != "sctd released":
        changes = {"t_range": [0.28, 0.2801], "max_t_range": 0.28, **changes}
    guide = build(variant, prior, **changes)
    images = prior.decode(latents(VIEWS))
    counts = set()
    for seed in range(20):
        output = guide(images, prior.conditioning(0, VIEWS), 399, rngs(VIEWS, seed))
        counts.add(output.diagnostics["unet_evals_per_view"])
    assert counts == {evaluations}


def test_gcs_without_a_term_is_refused() -> None:
    with pytest.raises(ValueError, match=r"w_cc, w_gc and w_cp .* are all 0"):
        build("gcs", PixelPrior(), w_cc=0.0, w_gc=0.0, w_cp=0.0)
