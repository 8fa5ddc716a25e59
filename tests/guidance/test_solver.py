"""The one step against diffusers' own solvers, in both directions of time."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMInverseScheduler,
    DDIMScheduler,
    DPMSolverMultistepInverseScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from guidance import solver
from guidance.prediction import KINDS
from guidance.schedule import CLEAN, Schedule
from tests.guidance.analytic_prior import stable_diffusion_alphas
from tests.guidance.cases import latents

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
CLOSE = {"rtol": 1e-9, "atol": 1e-9}
PREDICTIONS = ("epsilon", "v_prediction", "sample")


@pytest.fixture
def schedule() -> Schedule:
    return Schedule.diffusion(stable_diffusion_alphas())


@pytest.fixture
def state() -> tuple[Tensor, Tensor]:
    """A sample and a prediction [1, 4, 4, 4] float64."""
    return latents(1, seed=1), latents(1, seed=2)


def in_float64(scheduler: Any) -> Any:
    """Give diffusers' scheduler, whose tables are in float32, the same tables from the same abar in float64."""
    abar = stable_diffusion_alphas()
    torch.testing.assert_close(scheduler.alphas_cumprod.double(), abar, rtol=1e-5, atol=0)
    scheduler.alphas_cumprod = abar
    if hasattr(scheduler, "lambda_t"):
        scheduler.alpha_t, scheduler.sigma_t = abar.sqrt(), (1 - abar).sqrt()
        scheduler.lambda_t = (scheduler.alpha_t / scheduler.sigma_t).log()
    scheduler.set_timesteps(50)
    if hasattr(scheduler, "lambda_t"):
        exact = ((1 - abar) / abar).sqrt()[torch.as_tensor(scheduler.timesteps.tolist())]
        torch.testing.assert_close(scheduler.sigmas[: len(exact)].double(), exact, rtol=1e-4, atol=0)
        scheduler.sigmas = torch.cat([exact, scheduler.sigmas[len(exact) :].double()])
    else:
        last = "final_alpha_cumprod" if hasattr(scheduler, "final_alpha_cumprod") else "initial_alpha_cumprod"
        setattr(scheduler, last, getattr(scheduler, last).double())
    return scheduler


def take(z: Tensor, prediction: Tensor, t: int, u: int, schedule: Schedule, kind: str = "epsilon") -> Tensor:
    """Take one step by a network's answer, which is read as a prior reads it.

    It takes diffusion's own form; the sum of the clean sample and the noise must come to the same.
    """
    start, end = torch.tensor([t]), torch.tensor([u])
    found = KINDS[kind](z, prediction, start, schedule)
    moved = solver.step(z, found, start, end, schedule)
    plain = solver.mix(schedule.alpha(end), found.clean, schedule.sigma(end), found.eps)
    torch.testing.assert_close(moved, plain, **CLOSE)
    return moved


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("t", [980, 500, 20, 0])
def test_equals_ddim(t: int, kind: str, schedule: Schedule, state: tuple[Tensor, Tensor]) -> None:
    ddim = in_float64(DDIMScheduler(**BETAS, prediction_type=kind, clip_sample=False))
    z, prediction = state
    expected = ddim.step(prediction, t, z, eta=0.0).prev_sample
    actual = take(z, prediction, t, t - 20 if t else CLEAN, schedule, kind)
    torch.testing.assert_close(actual, expected, **CLOSE)


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("t", [960, 480, 0])
def test_equals_ddim_inversion(t: int, kind: str, schedule: Schedule, state: tuple[Tensor, Tensor]) -> None:
    ddim = in_float64(DDIMInverseScheduler(**BETAS, prediction_type=kind, clip_sample=False))
    z, prediction = state
    expected = ddim.step(prediction, torch.tensor(t + 20), z).prev_sample
    torch.testing.assert_close(take(z, prediction, t, t + 20, schedule, kind), expected, **CLOSE)


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("algorithm", ["dpmsolver", "dpmsolver++"])
@pytest.mark.parametrize("inverse", [False, True])
def test_equals_first_order_dpm_solver(
    inverse: bool, algorithm: str, kind: str, schedule: Schedule, state: tuple[Tensor, Tensor]
) -> None:
    solver_class = DPMSolverMultistepInverseScheduler if inverse else DPMSolverMultistepScheduler
    settings = {} if inverse else {"final_sigmas_type": "sigma_min"}
    with warnings.catch_warnings():
        # diffusers would rather not have plain dpmsolver used.
        warnings.simplefilter("ignore", FutureWarning)
        dpm = solver_class(
            **BETAS, **settings, solver_order=1, algorithm_type=algorithm, prediction_type=kind
        )
    dpm = in_float64(dpm)
    z, prediction = state
    # Its last step, to the schedule's own end, is no step between two of its times.
    for t, u in list(pairwise(dpm.timesteps.tolist()))[:-1]:
        # What its `step` does, but for the rounding to float32.
        dpm._init_step_index(torch.tensor(t))
        converted = dpm.convert_model_output(prediction, sample=z)
        expected = dpm.dpm_solver_first_order_update(converted, sample=z)
        torch.testing.assert_close(dpm.step(prediction, t, z).prev_sample, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(take(z, prediction, t, u, schedule, kind), expected, **CLOSE)
        z = expected


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("inverse", [False, True])
def test_equals_euler_on_a_flow(shift: float, inverse: bool, state: tuple[Tensor, Tensor]) -> None:
    """From pure noise, where alpha is 0, to the clean sample, and back through the same times."""
    flow, times = Schedule.flow(shift), [1000, 700, 250, 1]
    euler = FlowMatchEulerDiscreteScheduler(shift=shift)
    euler.set_timesteps(sigmas=[t / 1000 for t in times])
    torch.testing.assert_close(euler.timesteps, flow.told(torch.tensor(times)))
    torch.testing.assert_close(euler.sigmas, flow.sigma(torch.tensor([*times, CLEAN])).float())
    exact = flow.sigma(torch.tensor([*times, CLEAN]))
    euler.sigmas = exact.flip(0) if inverse else exact
    pairs = list(pairwise([*times, CLEAN]))
    z, v = state
    for t, (start, end) in zip(euler.timesteps, [(u, t) for t, u in reversed(pairs)] if inverse else pairs):
        if start == CLEAN:
            # No network is asked of a clean sample, whose time is 0 too.
            start = 0
        expected = euler.step(v, t, z.double()).prev_sample
        torch.testing.assert_close(
            take(z, v, start, end, flow, "flow"), expected.double(), rtol=1e-6, atol=1e-6
        )
        z = expected.double()


def test_churn_on_a_flow_is_that_of_diffusion_in_another_scale(schedule: Schedule) -> None:
    flow, (t, u) = Schedule.flow(3.0), (torch.tensor([400]), torch.tensor([600]))
    ratio = [flow.alpha(x) ** 2 / flow.power(x) for x in (t, u)]
    same = Schedule.diffusion(torch.cat([ratio[0], ratio[1]]))
    z, eps, noise = (latents(1, seed=seed) for seed in (1, 2, 3))
    scale = flow.power(u).sqrt()
    zero, one = torch.tensor([0]), torch.tensor([1])
    expected = scale * solver.churn(z / scale, eps, zero, one, same, eta=0.4, noise=noise)
    torch.testing.assert_close(solver.churn(z, eps, t, u, flow, eta=0.4, noise=noise), expected, **CLOSE)


@pytest.mark.parametrize(("t", "u"), [(500, 480), (980, 960), (100, 80)])
@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_churn_equals_stochastic_ddim(
    eta: float, t: int, u: int, schedule: Schedule, state: tuple[Tensor, Tensor]
) -> None:
    """The eta of diffusers is a factor on the standard deviation, this one (LucidDreamer's) on the variance."""
    ddim = in_float64(DDIMScheduler(**BETAS, clip_sample=False))
    (z, eps), noise = state, latents(1, seed=3)
    expected = ddim.step(eps, t, z, eta=eta, variance_noise=noise).prev_sample
    start, end = torch.tensor([t]), torch.tensor([u])
    arrived = take(z, eps, t, u, schedule)
    actual = solver.churn(arrived, eps, start, end, schedule, eta=eta**2, noise=noise)
    torch.testing.assert_close(actual, expected, **CLOSE)


@pytest.mark.parametrize(("t", "u"), [(0, 200), (400, 600), (600, 400), (799, 999), (500, 500)])
def test_churn_keeps_the_noise_level(t: int, u: int, schedule: Schedule) -> None:
    """Old and new noise of z = sigma_u eps are together as much as before, in either direction of time."""
    end = torch.tensor([u])
    one, sigma = torch.ones(1, 1), schedule.sigma(end)[None]

    def churned(old: float, new: float) -> float:
        z = sigma * old * one
        return float(solver.churn(z, old * one, torch.tensor([t]), end, schedule, eta=1.0, noise=new * one))

    kept, fresh = churned(1.0, 0.0), churned(0.0, 1.0)
    assert kept**2 + fresh**2 == pytest.approx(float(sigma) ** 2, rel=1e-6)
    assert fresh**2 <= float(sigma) ** 2 / 2 + 1e-9
    assert (fresh > 0) == (t != u)


def test_is_undone_by_the_step_back(schedule: Schedule, state: tuple[Tensor, Tensor]) -> None:
    z, eps = state
    for t, u in [(20, 900), (900, 20), (500, 500)]:
        there = take(z, eps, t, u, schedule)
        torch.testing.assert_close(take(there, eps, u, t, schedule), z, rtol=1e-12, atol=1e-12)


def test_splits_into_two_steps_with_the_same_noise(schedule: Schedule, state: tuple[Tensor, Tensor]) -> None:
    z, eps = state
    via = take(take(z, eps, 700, 300, schedule), eps, 300, CLEAN, schedule)
    torch.testing.assert_close(via, take(z, eps, 700, CLEAN, schedule), rtol=1e-12, atol=1e-12)


def test_every_view_has_its_own_times(schedule: Schedule) -> None:
    z, eps = latents(3, seed=1), latents(3, seed=2)
    t, u = torch.tensor([20, 500, 980]), torch.tensor([CLEAN, 980, 20])
    together = solver.step(z, KINDS["epsilon"](z, eps, t, schedule), t, u, schedule)
    for view in range(3):
        alone = take(z[view : view + 1], eps[view : view + 1], int(t[view]), int(u[view]), schedule)
        assert torch.equal(together[view : view + 1], alone)


def test_noise_added_is_noise_the_step_removes(schedule: Schedule, state: tuple[Tensor, Tensor]) -> None:
    z0, noise = state
    z_t = solver.add_noise(z0, noise, torch.tensor([640]), schedule)
    torch.testing.assert_close(take(z_t, noise, 640, CLEAN, schedule), z0, rtol=1e-12, atol=1e-12)
