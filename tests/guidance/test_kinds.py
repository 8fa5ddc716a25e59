"""What a network predicts, noise, v, the clean sample or a flow's velocity, changes nothing of what a method makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from guidance.contract import Gradient
from guidance.schedule import Schedule
from tests.draws import rngs
from tests.guidance.analytic_prior import PixelPrior
from tests.guidance.cases import VARIANTS, VIEWS, build, conditionings, latents
from tests.guidance.test_distillation import ALL, METHODS, distill
from tests.guidance.test_zero_snr import TIMES
from tests.guidance.written import both_gradients

KINDS = ("epsilon", "v_prediction", "sample")
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_kinds_give_the_same_gradient(variant: str) -> None:
    """The gradients in the images, on one schedule; a flow's answer on its own schedule is a clean sample's too."""
    for schedule, kinds in ((None, KINDS), (Schedule.flow(3.0), ("flow", "sample", "epsilon"))):
        found = []
        for kind in kinds:
            prior = PixelPrior(kind=kind, schedule=schedule)
            guide = build(variant, prior, fix_noise=True, w_cp=0.5)
            images = prior.decode(latents(VIEWS)).requires_grad_()
            conditioning = conditionings(prior, VIEWS)["negative, Perp-Neg"]
            guide(images, conditioning, 200, rngs(VIEWS)).loss.backward()
            assert images.grad is not None
            found.append(images.grad)
        for other in found[1:]:
            torch.testing.assert_close(other, found[0], **CLOSE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_gradient_on_a_flow_is_that_of_the_written_loss(variant: str) -> None:
    prior = PixelPrior(kind="flow", schedule=Schedule.flow(3.0))
    guide = build(variant, prior, fix_noise=True, lambda_guidance=0.3)
    for conditioning in conditionings(prior, VIEWS).values():
        torch.testing.assert_close(*both_gradients(variant, guide, conditioning, 200), **CLOSE)


@pytest.mark.parametrize("kind", [*KINDS[1:], "flow"])
@pytest.mark.parametrize("variant", METHODS)
def test_every_start_arrives_with_each_kind(variant: str, kind: str) -> None:
    settings: dict[str, Any] = {"schedule": Schedule.flow()} if kind == "flow" else {}
    assert distill(variant, prior={"kind": kind, **settings}).arrived() == ALL


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_flow_is_finite_up_to_pure_noise(variant: str) -> None:
    """t = T, where alpha is 0: the step and the difference divide by nothing."""
    prior = PixelPrior(kind="flow", schedule=Schedule.flow(3.0))
    method: Any = build(variant, prior).method
    times = {
        name: torch.full((VIEWS,), 1000 if t == 999 else t) for name, t in TIMES[variant.split()[0]].items()
    }
    draws: dict[str, Any] = {"rngs": rngs(VIEWS)} if variant == "ism" else {}
    draws |= {"step": 0} if variant == "cds released" else {}
    call: Callable[..., Gradient] = method.gradient
    with torch.set_grad_enabled(variant == "sctd exact"):
        gradient = call(
            latents(VIEWS), latents(VIEWS, seed=1), prior.conditioning(0, VIEWS), **times, **draws
        )
    for part in (*gradient.parts.values(), *(show() for show in gradient.predictions.values())):
        assert bool(part.isfinite().all())


def test_times_of_a_flow() -> None:
    """The window is a share of T, and ends before the weight does."""
    schedule = Schedule.flow(3.0)
    t = torch.tensor([0, 1, 500, 1000])
    sigma = torch.tensor([0.0, 0.003 / 1.002, 0.75, 1.0], dtype=torch.float64)
    torch.testing.assert_close(schedule.sigma(t), sigma)
    torch.testing.assert_close(schedule.alpha(t), 1 - sigma)
    torch.testing.assert_close(schedule.told(t), (1000 * sigma).float())
    assert (schedule.num_timesteps, schedule.steps_offset) == (1000, 1)
