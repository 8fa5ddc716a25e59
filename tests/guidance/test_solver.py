"""The one step against diffusers' own solvers, in both directions of time."""

from __future__ import annotations

import warnings
from itertools import pairwise

import pytest
import torch
from diffusers import (
    DDIMInverseScheduler,
    DDIMScheduler,
    DPMSolverMultistepInverseScheduler,
    DPMSolverMultistepScheduler,
)

from guidance import solver
from guidance.schedule import CLEAN, Schedule
from tests.guidance.analytic_prior import stable_diffusion_alphas

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
# diffusers keeps its tables in float32.
CLOSE = {"rtol": 2e-5, "atol": 2e-5}


@pytest.fixture
def schedule() -> Schedule:
    return Schedule(stable_diffusion_alphas())


@pytest.fixture
def state() -> tuple[torch.Tensor, torch.Tensor]:
    """A sample and a noise prediction [1, 4, 8, 8]."""
    rng = torch.Generator().manual_seed(1)
    return torch.randn(1, 4, 8, 8, generator=rng), torch.randn(1, 4, 8, 8, generator=rng)


def take(z: torch.Tensor, eps: torch.Tensor, t: int, u: int, schedule: Schedule) -> torch.Tensor:
    return solver.step(z, eps, torch.tensor([t]), torch.tensor([u]), schedule)


@pytest.mark.parametrize("t", [980, 500, 20, 0])
def test_equals_ddim(t: int, schedule: Schedule, state: tuple[torch.Tensor, torch.Tensor]) -> None:
    ddim = DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=True)
    ddim.set_timesteps(50)
    z, eps = state
    expected = ddim.step(eps, t, z, eta=0.0).prev_sample
    torch.testing.assert_close(take(z, eps, t, t - 20 if t else CLEAN, schedule), expected, **CLOSE)


@pytest.mark.parametrize("t", [960, 480, 0])
def test_equals_ddim_inversion(t: int, schedule: Schedule, state: tuple[torch.Tensor, torch.Tensor]) -> None:
    ddim = DDIMInverseScheduler(**BETAS, clip_sample=False)
    ddim.set_timesteps(50)
    z, eps = state
    expected = ddim.step(eps, torch.tensor(t + 20), z).prev_sample
    torch.testing.assert_close(take(z, eps, t, t + 20, schedule), expected, **CLOSE)


@pytest.mark.parametrize("algorithm", ["dpmsolver", "dpmsolver++"])
@pytest.mark.parametrize("inverse", [False, True])
def test_equals_first_order_dpm_solver(
    algorithm: str, inverse: bool, schedule: Schedule, state: tuple[torch.Tensor, torch.Tensor]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # diffusers would rather not have plain dpmsolver used
        if inverse:
            dpm = DPMSolverMultistepInverseScheduler(**BETAS, solver_order=1, algorithm_type=algorithm)
        else:
            dpm = DPMSolverMultistepScheduler(
                **BETAS, solver_order=1, algorithm_type=algorithm, final_sigmas_type="sigma_min"
            )
    dpm.set_timesteps(50)
    z, eps = state
    times = dpm.timesteps.tolist()
    for t, u in list(pairwise(times))[:-1]:
        expected = dpm.step(eps, t, z).prev_sample
        torch.testing.assert_close(take(z, eps, t, u, schedule), expected, **CLOSE)
        z = expected


def test_is_undone_by_the_step_back(schedule: Schedule, state: tuple[torch.Tensor, torch.Tensor]) -> None:
    z, eps = (x.double() for x in state)
    for t, u in [(20, 900), (900, 20), (500, 500)]:
        there = take(z, eps, t, u, schedule)
        torch.testing.assert_close(take(there, eps, u, t, schedule), z, rtol=1e-12, atol=1e-12)


def test_splits_into_two_steps_with_the_same_noise(
    schedule: Schedule, state: tuple[torch.Tensor, torch.Tensor]
) -> None:
    z, eps = (x.double() for x in state)
    via = take(take(z, eps, 700, 300, schedule), eps, 300, CLEAN, schedule)
    torch.testing.assert_close(via, take(z, eps, 700, CLEAN, schedule), rtol=1e-12, atol=1e-12)


def test_every_view_has_its_own_times(schedule: Schedule, state: tuple[torch.Tensor, torch.Tensor]) -> None:
    z, eps = (x.repeat(3, 1, 1, 1) for x in state)
    t, u = torch.tensor([20, 500, 980]), torch.tensor([CLEAN, 980, 20])
    together = solver.step(z, eps, t, u, schedule)
    for view in range(3):
        alone = take(z[view : view + 1], eps[view : view + 1], int(t[view]), int(u[view]), schedule)
        assert torch.equal(together[view : view + 1], alone)


def test_noise_added_is_noise_the_step_removes(schedule: Schedule) -> None:
    rng = torch.Generator().manual_seed(0)
    z0, noise = torch.randn(2, 4, 8, 8, generator=rng).double().chunk(2)
    t = torch.tensor([640])
    z_t = solver.add_noise(z0, noise, t, schedule)
    torch.testing.assert_close(take(z_t, noise, 640, CLEAN, schedule), z0, rtol=1e-12, atol=1e-12)
