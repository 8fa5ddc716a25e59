"""A gradient that is compared with the papers' own now and then."""

from __future__ import annotations

import torch

from guidance import Checked
from tests.draws import rngs
from tests.guidance.analytic_prior import PixelPrior
from tests.guidance.cases import VIEWS, build, conditionings, latents


def test_it_measures_the_angle_and_leaves_the_answer_alone() -> None:
    prior = PixelPrior()
    images = prior.decode(latents(VIEWS)).requires_grad_()
    conditioning = conditionings(prior, VIEWS)["no negative, plain"]
    settings = {"w_self": 0.0, "t_threshold": 1000, "guidance_scale": 0.0, "fix_noise": False}
    plain = build("sctd", prior, **settings)
    checked = build("sctd", prior, **settings, check_interval=10)
    exact = build("sctd", prior, **{**settings, "w_self": 1.0, "t_threshold": 150})
    assert isinstance(checked, Checked)

    found = {}
    for name, guide in (("plain", plain), ("checked", checked), ("exact", exact)):
        output = guide(images, conditioning, 19, rngs(VIEWS, 19))
        found[name] = output, torch.autograd.grad(output.loss, images)[0]
    assert torch.equal(found["checked"][1], found["plain"][1])
    cosine = torch.nn.functional.cosine_similarity(
        found["plain"][1].flatten(), found["exact"][1].flatten(), dim=0
    )
    diagnostics = found["checked"][0].diagnostics
    torch.testing.assert_close(diagnostics["cosine_to_exact"], cosine)
    assert float(cosine) < 0.999
    evaluations = [float(found[name][0].diagnostics["unet_evals_per_view"]) for name in ("plain", "exact")]
    assert diagnostics["unet_evals_per_view"] == sum(evaluations)
    # Between two checks nothing is asked twice.
    assert "cosine_to_exact" not in checked(images, conditioning, 18, rngs(VIEWS, 18)).diagnostics
