"""Every hand-made gradient is what autograd makes of the loss that the paper writes (tests/guidance/written.py)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from guidance import solver
from tests.draws import rngs
from tests.guidance.analytic_prior import AnalyticPrior, PixelPrior
from tests.guidance.cases import CONDITIONINGS, VARIANTS, VIEWS, build, conditionings, latents
from tests.guidance.written import both_gradients

STEPS = (0, 399)
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


@pytest.mark.parametrize("prompts", CONDITIONINGS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_is_that_of_the_written_loss(variant: str, prompts: str) -> None:
    prior = PixelPrior()
    guide = build(variant, prior, fix_noise=True, lambda_guidance=0.3)
    for step in STEPS:
        actual, expected = both_gradients(variant, guide, conditionings(prior, VIEWS)[prompts], step)
        torch.testing.assert_close(actual, expected, **CLOSE)


@pytest.mark.parametrize(
    ("variant", "changes"),
    [
        ("sds", {"guidance_scale": 1.0}),
        ("sds", {"guidance_scale": 0.0, "weighting": "sigma_squared"}),
        ("ism", {"xs_delta_t": 70, "xs_inv_steps": 3, "weighting": "one"}),
        ("ism", {"guidance_scale": 1.0, "xs_inv_steps": 0}),
        ("ism", {"denoise_guidance_scale": 2.5}),
        ("cds", {"guidance_scale": 0.0, "cds_stage": "refine"}),
        ("cds released", {"guidance_scale": 20.0, "cds_stage": "coarse"}),
        ("gcs", {"w_cp": 2.0, "rgb_scale": 3.0, "w_cc": 0.0}),
        ("gcs", {"w_cp": 0.0, "w_gc": 0.0}),
        ("gcs", {"w_cc": 0.0, "w_gc": 0.0, "guidance_scale": 1.0}),
        ("sctd", {"guidance_scale": 0.0, "t_mode": "mono", "w_self": 0.6}),
        ("sctd", {"t_threshold": 1000, "phase_num": 50, "w_self": 0.0}),
        ("sctd released", {"w_cp": 0.7, "rgb_scale": 2.0}),
        ("sctd released", {"guidance_scale": 0.0, "t_mode": "mono", "delta_t": 0}),
        ("sctd exact", {"guidance_scale": 0.0, "t_mode": "mono", "weighting": "one"}),
        ("sctd exact", {"w_self": 0.0}),
    ],
)
def test_gradient_under_other_settings(variant: str, changes: dict[str, object]) -> None:
    prior = PixelPrior()
    guide = build(variant, prior, fix_noise=True, **changes)
    for conditioning in conditionings(prior, VIEWS).values():
        actual, expected = both_gradients(variant, guide, conditioning, 200)
        torch.testing.assert_close(actual, expected, **CLOSE)


def test_inversion_renews_noise_after_each_of_its_strides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Setting `xs_eta` acts on the way to z_s and nowhere else: without what `churn` does, it changes nothing."""
    prior, images = AnalyticPrior(), latents(VIEWS)
    seen: list[tuple[list[int], list[int], float]] = []

    def no_churn(z: Tensor, eps: Tensor, t: Tensor, u: Tensor, *_: object, **settings: Any) -> Tensor:
        seen.append((t.tolist(), u.tolist(), settings["eta"]))
        assert settings["noise"].shape == z.shape
        return z

    def gradient(eta: float) -> Tensor:
        guide = build("ism", prior, xs_eta=eta, fix_noise=True, t_range=[0.53, 0.5301], delta_t=80)
        return guide(images, prior.conditioning(0, VIEWS), 399, rngs(VIEWS)).gradient

    plain, churned = gradient(0.0), gradient(0.5)
    assert not torch.allclose(plain, churned)
    monkeypatch.setattr(solver, "churn", no_churn)
    assert torch.equal(gradient(0.5), plain)
    # t = 531, so s = 451.
    strides = [(1, 201), (201, 401), (401, 451)]
    assert seen == [([t] * VIEWS, [u] * VIEWS, 0.5) for t, u in strides]


@pytest.mark.parametrize("variant", VARIANTS)
def test_normalized_gradient_has_the_same_direction_and_unit_rms(variant: str) -> None:
    prior = AnalyticPrior()
    images = latents(VIEWS).requires_grad_()
    found = []
    for normalize in (False, True):
        guide = build(variant, prior, normalize_grad=normalize, lambda_guidance=0.3, w_cp=0.0)
        loss = guide(images, prior.conditioning(0, VIEWS), 0, rngs(VIEWS)).loss
        found.append(torch.autograd.grad(loss, images)[0].flatten(1))
    plain, normalized = found
    rms = plain.square().mean(1, keepdim=True).sqrt()
    torch.testing.assert_close(normalized, 0.3 * plain / rms, **CLOSE)
