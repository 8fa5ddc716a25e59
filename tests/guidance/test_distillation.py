"""SDS and SCTD on the analytic prior: where they must lead, and what must not lead there."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from config.guidance_params import GuidanceParams
from guidance import SCTD, SDS, base, solver
from guidance.base import Guidance
from guidance.schedule import CLEAN, Schedule
from tests.guidance.analytic_prior import AnalyticPrior

STARTS = 64
STEPS = 400
Make = Callable[[AnalyticPrior], Guidance]


def sds(guidance_scale: float = 7.5) -> Make:
    return lambda prior: SDS(prior, GuidanceParams(guidance_scale=guidance_scale), warmup_iter=150)


def sctd(guidance_scale: float = 7.5, *, phase_num: int = 5, t_mode: str = "uniform") -> Make:
    params = GuidanceParams(guidance_scale=guidance_scale, t_mode=t_mode)
    return lambda prior: SCTD(prior, params, phase_num=phase_num, num_ddim_timesteps=50, warmup_iter=150)


def distill(
    make: Make, *, wanted: int = 0, seed: int = 0, negative: bool = False
) -> tuple[AnalyticPrior, torch.Tensor]:
    """Follow a guidance for 400 Adam steps from 64 random starts; the prior and the latents reached."""
    prior = AnalyticPrior()
    guidance = make(prior)
    rng = torch.Generator().manual_seed(seed)
    latents = torch.randn(STARTS, 4, 4, 4, generator=rng).requires_grad_()
    adam = torch.optim.Adam([latents], lr=0.05)
    conditioning = prior.conditioning(wanted, STARTS, negative=negative)
    for step in range(STEPS):
        adam.zero_grad()
        guidance(latents, conditioning, step, rng).loss.backward()
        adam.step()
    return prior, latents.detach()


def arrived(make: Make, *, wanted: int = 0, seed: int = 0) -> int:
    """How many of the 64 starts end where p(wanted | z_0) > 0.99."""
    prior, latents = distill(make, wanted=wanted, seed=seed)
    return int((prior.posterior(latents, wanted) > 0.99).sum())


@pytest.mark.parametrize("wanted", [0, 1])
@pytest.mark.parametrize(
    "make",
    [sds(), sds(1.0), sctd(), sctd(t_mode="mono"), sctd(phase_num=1), sctd(0.0)],
    ids=["sds", "sds w=1", "sctd", "sctd mono", "sctd one segment", "sctd w=0"],
)
def test_every_start_reaches_the_wanted_class(make: Make, wanted: int) -> None:
    assert arrived(make, wanted=wanted) == STARTS


@pytest.mark.parametrize("make", [sds(), sctd()], ids=["sds", "sctd"])
def test_a_negative_prompt_leads_away_from_what_it_names(make: Make) -> None:
    """The right class, though past its modes: y and n never agree here, so the guidance never rests."""
    prior, latents = distill(make, negative=True)
    assert int((prior.posterior(latents, 0) > 0.99).sum()) == STARTS
    reached = latents.flatten(1)
    assert float((reached @ (prior.modes[:2].mean(0) - prior.modes[2:].mean(0))).min()) > 0


def test_sds_reaches_the_mode_itself() -> None:
    prior, latents = distill(sds())
    distance = (latents.flatten(1)[:, None] - prior.modes).norm(dim=-1).min(1).values
    assert float(distance.max()) < prior.spread * 64**0.5


def test_shorter_segments_end_nearer_to_the_data() -> None:
    """Theorem 1: the distillation error is bounded by the length of a segment."""
    errors = []
    for phase_num in (1, 2, 5, 10):
        prior, latents = distill(sctd(phase_num=phase_num))
        errors.append(float((latents.flatten(1)[:, None] - prior.modes).norm(dim=-1).min(1).values.mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 3


@pytest.mark.parametrize("make", [sds(), sctd(), sctd(0.0)], ids=["sds", "sctd", "sctd w=0"])
def test_wrong_sign_leads_nowhere(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    right = base.surrogate_loss
    monkeypatch.setattr(base, "surrogate_loss", lambda z0, gradient: right(z0, -gradient))
    assert arrived(make) < STARTS / 4


@pytest.mark.parametrize("make", [sctd(), sctd(0.0)], ids=["sctd", "sctd w=0"])
def test_swapped_timesteps_of_the_denoising_steps_lead_nowhere(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = solver.step

    def swapped(
        z: torch.Tensor, eps: torch.Tensor, t: torch.Tensor, u: torch.Tensor, schedule: Schedule
    ) -> torch.Tensor:
        return right(z, eps, u, t, schedule) if bool((t > u).any()) else right(z, eps, t, u, schedule)

    monkeypatch.setattr(solver, "step", swapped)
    assert arrived(make) <= STARTS / 2


def test_self_consistency_alone_reaches_the_class_and_its_opposite_sign_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = SCTD.gradient
    reached = {}
    for sign in (1, -1):

        def only_self(
            self: SCTD, *arguments: object, sign: int = sign
        ) -> tuple[torch.Tensor, torch.Tensor, float]:
            toward, across, evals = right(self, *arguments)  # type: ignore[arg-type]
            return sign * toward, 0 * across, evals

        monkeypatch.setattr(SCTD, "gradient", only_self)
        reached[sign] = arrived(sctd(0.0))
    assert reached[1] == STARTS
    assert reached[-1] < STARTS / 4


def exact_trajectory(prior: AnalyticPrior, times: list[int]) -> list[torch.Tensor]:
    """Points z_t = alpha mu + sqrt(v_t) c of one solution of the ODE of a single mode, float64."""
    schedule = Schedule(prior.alphas_cumprod)
    direction = torch.randn(64, generator=torch.Generator().manual_seed(5)).double()
    points = []
    for t in times:
        alpha, sigma = (float(f(torch.tensor(t))) for f in (schedule.alpha, schedule.sigma))
        scale = (alpha**2 * prior.spread**2 + sigma**2) ** 0.5
        points.append((alpha * prior.modes[0].double() + scale * direction).reshape(1, 4, 4, 4))
    return points


ONE_MODE = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]])


def test_g_maps_one_trajectory_to_one_point() -> None:
    """Of a point mass the ODE is solved exactly by one step, from wherever on the trajectory it starts."""
    prior = AnalyticPrior(spread=0.0)
    schedule = Schedule(prior.alphas_cumprod)
    times = [200, 220, 300, 640, 980]
    points = exact_trajectory(prior, times)
    for t, point in zip(times, points):
        eps = prior.eps(point, torch.tensor([t]), ONE_MODE)
        landed = solver.step(point, eps, torch.tensor([t]), torch.tensor([200]), schedule)
        torch.testing.assert_close(landed, points[0], rtol=1e-9, atol=1e-9)
        clean = solver.step(point, eps, torch.tensor([t]), torch.tensor([CLEAN]), schedule)
        torch.testing.assert_close(clean.flatten(), prior.modes[0].double(), rtol=1e-9, atol=1e-9)


def test_solver_is_of_first_order_and_inversion_undoes_it() -> None:
    """Of a wider mode each halving of the steps halves the error, forward and backward in time."""
    prior = AnalyticPrior(spread=0.5)
    schedule = Schedule(prior.alphas_cumprod)
    low, high = exact_trajectory(prior, [200, 840])
    for start, end, goal, z_start in ((840, 200, low, high), (200, 840, high, low)):
        errors = []
        for steps in (8, 16, 32, 64):
            times = torch.linspace(start, end, steps + 1).round().long()
            z = z_start
            for t, u in pairwise(times):
                z = solver.step(z, prior.eps(z, t[None], ONE_MODE), t[None], u[None], schedule)
            errors.append(float((z - goal).norm()))
        ratios = torch.tensor(errors[:-1]) / torch.tensor(errors[1:])
        assert bool(((ratios > 1.7) & (ratios < 2.3)).all()), errors
