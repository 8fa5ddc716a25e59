"""The guided prediction eps^omega against a second reading of its formula, view by view and number by number."""

from __future__ import annotations

import pytest
import torch

from guidance import Denoiser
from guidance.denoiser import perpendicular
from tests.guidance.analytic_prior import PixelPrior
from tests.guidance.cases import CONDITIONINGS, VIEWS, conditionings, config_of, latents
from tests.guidance.written import View

TIMES = torch.tensor([20, 333, 700, 980])


@pytest.mark.parametrize("omega", [0.0, 1.0, 7.5])
@pytest.mark.parametrize("prompts", CONDITIONINGS)
def test_guided_prediction_view_by_view(prompts: str, omega: float) -> None:
    prior, z = PixelPrior(), latents(VIEWS)
    conditioning = conditionings(prior, VIEWS)[prompts]
    found = Denoiser(prior).guided(z, TIMES, conditioning, omega, want_n=True, want_empty=True)
    assert len(prior.calls) == 1
    for view, t in enumerate(TIMES.tolist()):
        reading = View(prior, conditioning, view, config_of("sds").guidance, noise=z[:1])
        here = z[view, None]
        torch.testing.assert_close(
            found.prediction.eps[view, None], reading.guided(here, t, omega), rtol=1e-9, atol=1e-9
        )
        torch.testing.assert_close(found.n.eps[view, None], reading.eps_n(here, t), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found.empty.eps[view, None], reading.eps_0(here, t), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("omega", [0.0, 1.0, 7.5])
@pytest.mark.parametrize("prompts", CONDITIONINGS)
def test_what_is_not_wanted_is_not_there_and_changes_nothing(prompts: str, omega: float) -> None:
    prior, z = PixelPrior(), latents(VIEWS)
    conditioning = conditionings(prior, VIEWS)[prompts]
    denoiser = Denoiser(prior)
    alone = denoiser.guided(z, TIMES, conditioning, omega)
    assert (alone.n, alone.empty) == (None, None)
    assert denoiser.evaluations == prior.evaluations
    with_more = denoiser.guided(z, TIMES, conditioning, omega, want_n=True, want_empty=True)
    torch.testing.assert_close(alone.prediction.eps, with_more.prediction.eps, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("prompts", "omega", "rows"),
    [
        ("no negative, plain", 7.5, 2 * VIEWS),
        ("no negative, plain", 1.0, VIEWS),
        ("no negative, plain", 0.0, VIEWS),
        # Views 0 and 3, and views 1 and 3.
        ("no negative, Perp-Neg", 7.5, 2 * VIEWS + 4),
        # eps_n is of use to these three views only.
        ("negative, Perp-Neg", 1.0, VIEWS + 4 + 3),
        ("negative, Perp-Neg", 0.0, VIEWS),
    ],
)
def test_rows_that_go_through_the_network(prompts: str, omega: float, rows: int) -> None:
    prior = PixelPrior()
    Denoiser(prior).guided(latents(VIEWS), TIMES, conditionings(prior, VIEWS)[prompts], omega)
    assert [size for size, _ in prior.calls] == [rows]


def test_perpendicular_is_what_the_name_says() -> None:
    e, onto = latents(3, seed=1), latents(3, seed=2)
    across = perpendicular(e, onto)
    zero = torch.zeros(3, dtype=torch.float64)
    torch.testing.assert_close((across * onto).flatten(1).sum(1), zero, rtol=0, atol=1e-12)
    torch.testing.assert_close(perpendicular(across, onto), across, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(perpendicular(onto, onto), 0 * onto, rtol=0, atol=1e-12)
    assert torch.equal(perpendicular(e, 0 * onto), e)
