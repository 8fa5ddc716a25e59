"""Timesteps that the configuration accepts, all of which the guidances can draw."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from config import Config, ConfigError, load
from guidance import GCS, METHODS, SCTD, Denoiser, ReleasedSCTD
from guidance.schedule import Schedule
from tests.draws import rngs
from tests.guidance.analytic_prior import stable_diffusion_alphas

PRIORS = [
    SimpleNamespace(schedule=Schedule.diffusion(stable_diffusion_alphas(), offset)) for offset in (0, 1)
]
COUNT = 64


def drawn(config: Config, prior: SimpleNamespace, step: int) -> tuple[Tensor, ...]:
    """The times of one iteration, in the order in which they must rise."""
    views = rngs(COUNT, step)
    method = METHODS[config.guidance_type](config, Denoiser(prior))  # type: ignore[arg-type]
    if isinstance(method, GCS):
        return method.times(step, views)
    if isinstance(method, ReleasedSCTD):
        return method.segments.draw(step, config.guidance.delta_t, views)
    assert isinstance(method, SCTD)
    t = method.grid.draw(step, views)
    s_m = method.grid.start_of_segment(t)
    return s_m, method.grid.draw_between(s_m, t, views), t


@settings(max_examples=40)
@given(
    low=st.sampled_from([0.0, 0.02, 0.2]),
    width=st.sampled_from([0.01, 0.1, 0.3, 0.5]),
    top=st.sampled_from([0.3, 0.8, 1.0]),
    t_mode=st.sampled_from(["uniform", "mono"]),
    phase_num=st.integers(1, 12),
    t_threshold=st.integers(1, 300),
    delta_t=st.integers(0, 400),
)
@pytest.mark.parametrize("method", ["gcs", "sctd paper", "sctd released"])
def test_what_is_accepted_can_be_drawn(
    method: str,
    low: float,
    width: float,
    top: float,
    t_mode: str,
    phase_num: int,
    t_threshold: int,
    delta_t: int,
) -> None:
    name, variant = [*method.split(), "paper"][:2]
    argv = f"--guidance_type {name} --sctd_variant {variant} --t_mode {t_mode} --phase_num {phase_num} "
    argv += f"--t_threshold {t_threshold} --delta_t {delta_t} --t_range [{low},{low + width:g}] --max_t_range {top}"
    try:
        config = load(argv.split())
    except ConfigError:
        return
    for prior, step in product(PRIORS, (0, 200, 400)):
        first, middle, last = drawn(config, prior, step)
        ordered = (first >= 0) & (first <= middle) & (middle < last) & (last < 1000)
        assert bool(ordered.all())
