"""The methods on the analytic prior: they lead where they must, and a fault in any of them does not go unseen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor

from guidance import solver
from guidance.condition import Condition
from guidance.prompts import Conditioning
from guidance.schedule import CLEAN
from tests.draws import rngs
from tests.guidance.analytic_prior import AnalyticPrior, PixelPrior
from tests.guidance.cases import VIEWS, build, conditionings
from tests.guidance.mutation import mutate
from tests.guidance.written import TimesOutOfOrder, both_gradients

STARTS = 32
STEPS = 300
METHODS = ("sds", "ism", "cds", "cds released", "gcs", "sctd", "sctd released")

AGAINST_OTHERS = {"cds released": {"guidance_scale": 7.5}}
"""Settings beside a negative prompt or Perp-Neg: Consistent3D's scale of 100 leaves two starts of 64 behind there."""


def both_classes(prior: AnalyticPrior, **prompts: bool) -> Conditioning:
    """Conditioning of 2 STARTS views: the first half wants class 0, the second class 1."""
    zero, one = (prior.conditioning(wanted, STARTS, **prompts) for wanted in (0, 1))
    later = tuple(replace(p, views=p.views + STARTS) for p in one.perp_negatives)
    embeddings = ("positive", "negative", "unconditional")
    joined = {name: Condition.cat([getattr(zero, name), getattr(one, name)]) for name in embeddings}
    return replace(zero, **joined, perp_negatives=zero.perp_negatives + later)


@dataclass(frozen=True)
class Ends:
    """Ends of 300 Adam steps from each of 32 random starts twice, with the same draws: to class 0, and to class 1."""

    prior: AnalyticPrior
    latents: Tensor

    def arrived(self) -> list[int]:
        """Count those of each half with p(its class | z_0) > 0.99."""
        halves = self.latents.split(STARTS)
        return [int((self.prior.posterior(z, wanted) > 0.99).sum()) for wanted, z in enumerate(halves)]

    def distances(self) -> Tensor:
        """Distance of each to its nearest mode."""
        return (self.latents.flatten(1)[:, None] - self.prior.modes).norm(dim=-1).min(1).values


ALL = [STARTS, STARTS]


def distill(
    variant: str,
    *,
    negative: bool = False,
    perp_neg: bool = False,
    start: Tensor | None = None,
    prior: Mapping[str, Any] = MappingProxyType({}),
    **changes: object,
) -> Ends:
    """Follow a guidance from the random starts, or from `start` [2 STARTS, 4, 4, 4], on the prior of these settings."""
    return _distilled(variant, AnalyticPrior(**prior), negative, perp_neg, start, changes)


def _distilled(
    variant: str,
    prior: AnalyticPrior,
    negative: bool,
    perp_neg: bool,
    start: Tensor | None,
    changes: Mapping[str, object],
) -> Ends:
    guide = build(variant, prior, iterations=STEPS, warmup_iter=100, **changes)
    rng = torch.Generator().manual_seed(0)
    latents = (
        torch.randn(STARTS, 4, 4, 4, generator=rng).repeat(2, 1, 1, 1) if start is None else start.clone()
    )
    latents.requires_grad_()
    adam = torch.optim.Adam([latents], lr=0.05)
    conditioning = both_classes(prior, negative=negative, perp_neg=perp_neg)
    views = rngs(STARTS) + rngs(STARTS)
    for step in range(STEPS):
        adam.zero_grad()
        guide(latents, conditioning, step, views).loss.backward()
        adam.step()
    return Ends(prior, latents.detach())


unharmed = cache(distill)
"""`distill` of the methods as they are, each computed once."""


@pytest.mark.parametrize("variant", METHODS)
def test_every_start_reaches_its_class_unless_there_is_a_fault(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert unharmed(variant).arrived() == ALL
    for fault in ASTRAY[variant]:
        with monkeypatch.context() as patch:
            mutate(patch, *FAULTS[variant][fault])
            assert distill(variant).arrived()[1] <= STARTS / 4, fault


@pytest.mark.parametrize("variant", METHODS)
def test_every_start_reaches_it_with_a_negative_prompt_and_perp_neg(variant: str) -> None:
    assert distill(variant, negative=True, perp_neg=True, **AGAINST_OTHERS.get(variant, {})).arrived() == ALL  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "changes"),
    [
        ("sds", {"guidance_scale": 1.0}),
        ("sctd", {"t_mode": "mono"}),
        ("sctd", {"phase_num": 1}),
        ("sctd", {"t_threshold": 1}),
        ("sctd", {"t_threshold": 1000}),
        ("sctd", {"guidance_scale": 0.0}),
        ("sctd released", {"t_mode": "mono"}),
        ("sctd released", {"t_threshold": 1}),
        ("sctd released", {"t_threshold": 1000}),
    ],
)
def test_every_start_reaches_its_class_under_other_settings(variant: str, changes: dict[str, object]) -> None:
    assert distill(variant, **changes).arrived() == ALL  # type: ignore[arg-type]


@pytest.mark.thorough
@pytest.mark.parametrize("variant", METHODS)
@pytest.mark.parametrize("prompts", [{"negative": True}, {"perp_neg": True}])
def test_every_start_reaches_it_with_either(variant: str, prompts: dict[str, bool]) -> None:
    assert distill(variant, **prompts, **AGAINST_OTHERS.get(variant, {})).arrived() == ALL  # type: ignore[arg-type]


def test_sds_reaches_the_mode_itself() -> None:
    ends = unharmed("sds")
    assert float(ends.distances().max()) < ends.prior.spread * 64**0.5


def test_shorter_segments_end_nearer_to_the_data() -> None:
    """Theorem 1: the distillation error is bounded by the length of a segment."""
    errors = [
        float(distill("sctd", phase_num=phase_num).distances()[:STARTS].mean()) for phase_num in (1, 2, 10)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 3


def test_self_consistency_alone_reaches_the_class_in_the_papers_sign_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sign of this term differs between the two variants of SCTD."""
    mutate(monkeypatch, "sctd", "(p.guidance_scale + 1) ** 2 * w", "0 * w")
    assert distill("sctd").arrived() == ALL
    monkeypatch.undo()
    mutate(
        monkeypatch,
        "sctd",
        """p.w_self * w * (origin.detach() - g_s)
        parts["cross"] = (p.guidance_scale + 1) ** 2 * w""",
        """-w * (origin.detach() - g_s)
        parts["cross"] = 0 * w""",
    )
    assert max(distill("sctd").arrived()) < STARTS / 4


def test_released_sctd_does_not_see_the_prompt_without_guidance() -> None:
    """The released eps^omega at omega = 0 is eps_n, where the paper has eps_y: the same is reached for any class."""
    zero, one = distill("sctd released", guidance_scale=0.0).latents.split(STARTS)
    assert torch.equal(zero, one)


def test_the_sign_that_consistent3d_prints_runs_away_whatever_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The test descends Eq. 10 as it stands, with the derivative of D passed straight to z_0."""

    def sizes(ends: Ends) -> Tensor:
        return ends.latents.flatten(1).norm(dim=1).reshape(2, STARTS).mean(1)

    # At the start it is about 8.
    assert float(sizes(unharmed("cds")).max()) < 16
    mutate(monkeypatch, *FAULTS["cds"]["the paper's sign"])
    ends = distill("cds")
    assert float(sizes(ends).min()) > 80
    assert ends.arrived()[1] == 0


@pytest.mark.thorough
def test_true_jacobian_nearly_vanishes_and_leaves_some_starts_behind() -> None:
    """`approximate: false` descends Eq. 10 itself.

    The U-Net of this prior contracts across one first-order step there and back. Its Jacobian takes most of the
    gradient away, and some starts stay in the other class. The approximation of Sec. 4.4 brings all of these home.
    """
    ends = distill("sctd exact")
    assert min(ends.arrived()) > STARTS * 3 / 4
    conditioning = both_classes(ends.prior)

    def typical_gradient(variant: str) -> float:
        guide = build(variant, ends.prior)
        norms = [
            guide(ends.latents, conditioning, STEPS, rngs(2 * STARTS, seed)).gradient.flatten(1).norm(dim=1)
            for seed in range(10)
        ]
        return float(torch.stack(norms).median())

    assert typical_gradient("sctd exact") < typical_gradient("sctd") / 20
    assert distill("sctd", start=ends.latents).arrived() == ALL


def is_autograd(variant: str) -> bool:
    """Return whether the gradient is the written loss's, and its times in order, for every kind of conditioning."""
    prior = PixelPrior()
    guide = build(variant, prior, fix_noise=True)
    for conditioning in conditionings(prior, VIEWS).values():
        try:
            actual, expected = both_gradients(variant, guide, conditioning, step=250)
        except TimesOutOfOrder:
            return False
        if not torch.allclose(actual, expected, rtol=1e-9, atol=1e-9):
            return False
    return True


FAULTS: dict[str, dict[str, tuple[str, str, str]]] = {
    "sds": {
        "sign of the guidance": (
            "sds",
            "difference(found.prediction, found.n, t",
            "difference(found.n, found.prediction, t",
        ),
        "sign of the whole": ("sds", "w = solver.per_view(", "w = -solver.per_view("),
        "views' times mixed up": ("sds", "guided(z_t, t, cond", "guided(z_t, t.flip(0), cond"),
        "no w(t)": (
            "sds",
            '"denoise": w * solver.difference(found.n',
            '"denoise": solver.difference(found.n',
        ),
        "no omega": ("denoiser", "base + omega * direction", "base + direction"),
        "no alpha_t": ("solver", "mix(schedule.alpha(t), z0, ", "mix(0 * schedule.alpha(t) + 1, z0, "),
    },
    "ism": {
        "sign": ("ism", "difference(at_t, at_s, t", "difference(at_s, at_t, t"),
        "t and s swapped in the step": (
            "ism",
            "(z_s, at_s, s, t, schedule)",
            "(z_s, at_s, t, s, schedule)",
        ),
        "t and s swapped in the draw": ("ism", "conditioning, s, t, rngs)", "conditioning, t, s, rngs)"),
        "inversion backwards": ("ism", "step(z[rows], found, t, u,", "step(z[rows], found, u, t,"),
        "no w(t)": ("ism", "w * solver.difference(", "solver.difference("),
        "no omega": ("denoiser", "base + omega * direction", "base + direction"),
    },
    "cds": {
        "the paper's sign": (
            "cds",
            "at_1.eps - at_2.eps}",
            "at_2.eps - at_1.eps}",
        ),
        "times swapped in the step": ("cds", "at_1, t_1, t_2, schedule", "at_1, t_2, t_1, schedule"),
        "times swapped in the draw": ("cds", "conditioning, t_1, t_2)", "conditioning, t_2, t_1)"),
        "no omega at t_2": (
            "cds",
            "guided(z_2, t_2, conditioning, omega)",
            "guided(z_2, t_2, conditioning, 1)",
        ),
    },
    "cds released": {
        "sign": ("cds_released", "(w * part)", "(-w * part)"),
        "times swapped in the draw": ("cds_released", "t_1, t_2, step)\n\n", "t_2, t_1, step)\n\n"),
        "omega counted as ours": ("cds_released", "omega = 1 + self.omega", "omega = self.omega"),
        "omega stays": ("cds_released", "(stage.kept - 1) * progress", "0 * progress"),
        "no weight": ("cds_released", "** stage.power", "** 0"),
        "no bound": ("cds_released", "clamp(-bound, bound)", "clamp(-1e9, 1e9)"),
        "bound stays": ("cds_released", "(CLIP[1] - CLIP[0])", "0"),
    },
    "gcs": {
        "sign": ("gcs", "mean = 2 / p.C_batch_size", "mean = -2 / p.C_batch_size"),
        "sign of L_CC": ("gcs", "(g_t - g_s)", "(g_s - g_t)"),
        "sign of L_CP": ("gcs", "PixelGradient(clean_e, clean_y", "PixelGradient(clean_y, clean_e"),
        "times swapped in the step": ("gcs", "z_t, at_t.prediction, t, e)", "z_t, at_t.prediction, e, t)"),
        "times swapped in the draw": (
            "gcs",
            "return e + offset, s + offset",
            "return s + offset, e + offset",
        ),
        "no alpha_e": ("gcs", "* solver.per_view(self.schedule.alpha(e), z0) ", ""),
        "no 2 of the square": ("gcs", "mean = 2 / p.C_batch_size", "mean = 1 / p.C_batch_size"),
    },
    "sctd": {
        "sign of self-consistency": ("sctd", "(origin.detach() - g_s)", "(g_s - origin.detach())"),
        "sign of cross-consistency": ("sctd", "(across.detach() - g_y)", "(g_y - across.detach())"),
        "times swapped in the step": (
            "sctd",
            "(z_t, at_y, t, s_m, schedule)",
            "(z_t, at_y, s_m, t, schedule)",
        ),
        "times swapped in the draw": ("sctd", "conditioning, s_m, s, t)\n\n", "conditioning, s_m, t, s)\n\n"),
        "omega + 1 not squared": ("sctd", "(p.guidance_scale + 1) ** 2", "(p.guidance_scale + 1)"),
        "no w(t)": ("sctd", "p.w_self * w * ", "p.w_self * "),
        "no projection in Perp-Neg": ("denoiser", "return e - (e * onto)", "return e - 0 * (e * onto)"),
    },
    "sctd released": {
        "sign of self-consistency": ("sctd_released", "(g_s - z_sm)", "(z_sm - g_s)"),
        "sign of cross-consistency": ("sctd_released", "(z_sm - g_y)", "(g_y - z_sm)"),
        "times swapped in the step": ("sctd_released", "at_t, t, s_m, schedule", "at_t, s_m, t, schedule"),
        "times swapped in the draw": (
            "sctd_released",
            "conditioning, s_m, s, t)\n\n",
            "conditioning, s_m, t, s)\n\n",
        ),
        "no omega + 1": ("sctd_released", "(omega + 1) * w", "w"),
    },
    "sctd exact": {
        "sign of self-consistency": ("sctd", "(origin.detach() - g_s)", "(g_s - origin.detach())"),
        "no 1 / alpha": ("sctd", "part / solver.per_view(schedule.alpha(s_m), z0)", "part"),
        "times swapped in the step": ("sctd", "at_t.empty, t, s_m, schedule", "at_t.empty, s_m, t, schedule"),
        "Jacobian of another branch": ("sctd", '"cross": across}', '"cross": origin}'),
    },
}
"""Faults of each method by name: file of guidance/, what stands there, what the fault makes of it."""

ASTRAY = {
    "sds": ["sign of the guidance", "sign of the whole"],
    "ism": ["sign"],
    "cds": ["times swapped in the step", "times swapped in the draw"],
    "cds released": ["sign"],
    "gcs": ["sign"],
    "sctd": ["sign of cross-consistency", "times swapped in the step"],
    "sctd released": ["sign of cross-consistency", "times swapped in the step"],
}
"""Faults that also lead at most a quarter of the starts to class 1, as the paper's sign of CDS does, which has a test of
its own; the others change how far or straight they go."""


@pytest.mark.parametrize("variant", FAULTS)
def test_autograd_sees_every_fault(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_autograd(variant)
    for fault, change in FAULTS[variant].items():
        with monkeypatch.context() as patch:
            mutate(patch, *change)
            assert not is_autograd(variant), fault


def exact_trajectory(prior: AnalyticPrior, times: list[int]) -> list[Tensor]:
    """Points z_t = alpha mu + sqrt(v_t) c of one solution of the ODE of a single mode, float64."""
    schedule = prior.schedule
    direction = torch.randn(64, generator=torch.Generator().manual_seed(5)).double()
    points = []
    for t in times:
        alpha, sigma = (float(f(torch.tensor(t))) for f in (schedule.alpha, schedule.sigma))
        scale = (alpha**2 * prior.spread**2 + sigma**2) ** 0.5
        points.append((alpha * prior.modes[0].double() + scale * direction).reshape(1, 4, 4, 4))
    return points


ONE_MODE = Condition({"weights": torch.tensor([[[1.0, 0.0, 0.0, 0.0]]])})


def test_g_maps_one_trajectory_to_one_point() -> None:
    """A single step solves the ODE of a point mass exactly, from wherever on the trajectory it starts."""
    prior = AnalyticPrior(spread=0.0)
    schedule = prior.schedule
    times = [200, 220, 300, 640, 980]
    points = exact_trajectory(prior, times)
    for t, point in zip(times, points):
        eps = prior.predict(point, torch.tensor([t]), ONE_MODE)
        landed = solver.step(point, eps, torch.tensor([t]), torch.tensor([200]), schedule)
        torch.testing.assert_close(landed, points[0], rtol=1e-9, atol=1e-9)
        clean = solver.step(point, eps, torch.tensor([t]), torch.tensor([CLEAN]), schedule)
        torch.testing.assert_close(clean.flatten(), prior.modes[0].double(), rtol=1e-9, atol=1e-9)


def test_solver_is_of_first_order_and_inversion_undoes_it() -> None:
    """Each halving of the steps halves the error at a wider mode, forward and backward in time."""
    prior = AnalyticPrior(spread=0.5)
    schedule = prior.schedule
    low, high = exact_trajectory(prior, [200, 840])
    for start, end, goal, z_start in ((840, 200, low, high), (200, 840, high, low)):
        errors = []
        for steps in (8, 16, 32, 64):
            times = torch.linspace(start, end, steps + 1).round().long()
            z = z_start
            for t, u in pairwise(times):
                z = solver.step(z, prior.predict(z, t[None], ONE_MODE), t[None], u[None], schedule)
            errors.append(float((z - goal).norm()))
        ratios = torch.tensor(errors[:-1]) / torch.tensor(errors[1:])
        assert bool(((ratios > 1.7) & (ratios < 2.3)).all()), errors
