from __future__ import annotations

import numpy as np
import point_e_reference as reference
import pytest
from diffusers import DDPMScheduler

from point_e.schedule import alphas_cumprod, timestep_of

SCHEDULES = ("cosine", "linear")


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("timesteps", [1024, 200])
def test_equals_the_reference(schedule: str, timesteps: int) -> None:
    truth = reference.alphas_cumprod(schedule, timesteps)
    np.testing.assert_allclose(alphas_cumprod(schedule, timesteps), truth, rtol=1e-9)


@pytest.mark.parametrize(
    ("schedule", "settings"),
    [
        ("cosine", {"beta_schedule": "squaredcos_cap_v2"}),
        ("linear", {"beta_schedule": "linear", "beta_start": 0.1 / 1024, "beta_end": 20 / 1024}),
    ],
)
def test_equals_that_of_diffusers(schedule: str, settings: dict) -> None:
    theirs = DDPMScheduler(num_train_timesteps=1024, **settings).alphas_cumprod.numpy()
    # In single precision; the last cosine betas lose most of theirs in 1 - β.
    np.testing.assert_allclose(alphas_cumprod(schedule, 1024), theirs, rtol=1e-4)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_timestep_of_a_noise_level(schedule: str) -> None:
    abar = alphas_cumprod(schedule, 1024)
    edges = np.sqrt(1 / abar[::40] - 1)
    between = np.geomspace(1e-4, 1e4, 100)
    # At the levels of the steps themselves rounding would decide, so beside them.
    for sigma in [*between, *edges * (1 - 1e-6), *edges * (1 + 1e-6)]:
        assert timestep_of(sigma, abar) == reference.timestep_of(sigma, abar.tolist()), sigma
    assert timestep_of(0, abar) == 0
    assert timestep_of(1e9, abar) == 1023
