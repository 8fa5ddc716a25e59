from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from config.schema import OptimizationParams
from scene.densify import (
    Refinement,
    cap_scales,
    clone,
    grows,
    prune,
    refine,
    refines,
    relocate,
    reset_opacity,
    shared_opacity,
    shared_scale,
    split,
)
from scene.gaussian_model import GaussianModel
from scene.optimizer import GaussianOptimizer
from scene.statistics import DensificationStats
from utils.rotation import quaternion_to_matrix

EXTENT = 2.0
MANY = 1_000_000
PARAMS = OptimizationParams(percent_dense=0.05, iterations=1000)  # small means a scale of at most 0.1


def build(scales: list[float], opacities: list[float] | None = None, params: OptimizationParams = PARAMS):
    """Gaussians with these scales (x), a tenth of them in y and z, and Adam moments that are not zero."""
    count = len(scales)
    rng = torch.Generator().manual_seed(0)
    model = GaussianModel.from_points(
        torch.rand(count, 3, generator=rng), torch.rand(count, 3, generator=rng), 1
    )
    with torch.no_grad():
        model._scales[:] = torch.tensor(scales).log()[:, None] - torch.tensor(
            [0.0, math.log(10), math.log(10)]
        )
        model._rotations[:] = torch.randn(count, 4, generator=rng)
        if opacities is not None:
            model._opacities[:, 0] = torch.logit(torch.tensor(opacities))
    optimizer = GaussianOptimizer(model, params, EXTENT)
    for parameter in model.raw().values():
        parameter.grad = torch.randn(parameter.shape, generator=rng)
    before = model.state_dict()
    saved = {name: tensor.clone() for name, tensor in before.items()}
    optimizer.adam.step()
    with torch.no_grad():
        for name, parameter in model.raw().items():
            parameter.copy_(saved[name])
    return optimizer


def hot(stats: DensificationStats, rows: list[int]) -> None:
    stats.views += 1
    stats.gradient_sum[rows] = 1.0


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def test_statistics_count_every_view() -> None:
    stats = DensificationStats.zeros(4)
    gradient = torch.zeros(3, 4, 2)
    gradient[0, 1] = torch.tensor([0.3, 0.4])
    gradient[1, 1] = torch.tensor([0.0, 1.0])
    gradient[1, 2] = torch.tensor([2.0, 0.0])
    gradient[2, 3] = torch.tensor([9.0, 9.0])  # not seen there: must not count
    radii = torch.tensor([[0, 5, 0, 0], [0, 7, 30, 0], [0, 2, 1, 0]], dtype=torch.int32)
    stats.add(DensificationStats.of_views(gradient, radii, width=2, height=4))
    # In normalised device coordinates: x · 1, y · 2.
    one = (math.hypot(0.3, 0.8) + 2.0 + 0.0) / 3
    torch.testing.assert_close(stats.mean_gradient(), torch.tensor([0.0, one, 1.0, 0.0]))
    assert stats.max_radii.tolist() == [0, 7, 30, 0]
    assert stats.views.tolist() == [0, 3, 2, 0]


def test_statistics_of_a_batch_equal_those_of_its_views() -> None:
    generator = torch.Generator().manual_seed(0)
    gradient, radii = (
        torch.randn(5, 20, 2, generator=generator),
        torch.randint(-0, 3, (5, 20), generator=generator),
    )
    whole, single = DensificationStats.zeros(20), DensificationStats.zeros(20)
    whole.add(DensificationStats.of_views(gradient, radii, 64, 32))
    for view in range(5):
        single.add(DensificationStats.of_views(gradient[view : view + 1], radii[view : view + 1], 64, 32))
    torch.testing.assert_close(whole.mean_gradient(), single.mean_gradient())
    assert torch.equal(whole.max_radii, single.max_radii)


def test_clone_copies_the_small_ones_with_a_large_gradient() -> None:
    optimizer = build([0.05, 0.05, 0.2, 0.1])
    hot(optimizer.stats, [1, 2, 3])
    old = optimizer.model.state_dict()
    assert clone(optimizer, PARAMS, MANY) == 2
    for name, parameter in optimizer.model.raw().items():
        assert torch.equal(parameter, torch.cat([old[name], old[name][[1, 3]]]))
        moments = optimizer.adam.state[parameter]["exp_avg"]
        assert moments[:4].any()
        assert not moments[4:].any()
    assert optimizer.stats.views.shape == (6,)


def test_split_replaces_the_large_ones_by_two_smaller_children() -> None:
    optimizer = build([0.05, 0.3, 0.2, 0.15])
    hot(optimizer.stats, [0, 1, 3])
    old = optimizer.model.state_dict()
    assert split(optimizer, PARAMS, MANY, rng()) == 2
    model = optimizer.model
    assert len(model) == 4 - 2 + 4
    for name, parameter in model.raw().items():
        assert torch.equal(parameter[:2], old[name][[0, 2]])
    parents = torch.tensor([1, 3, 1, 3])
    for name in ("f_dc", "f_rest", "opacity", "rotation"):
        assert torch.equal(model.raw()[name][2:], old[name][parents])
    # Each child has 1.6^-3 of the volume; two of them about half of the parent's.
    torch.testing.assert_close(model.scales[2:], old["scaling"][parents].exp() / 1.6)


def test_children_are_drawn_from_their_parent() -> None:
    optimizer = build([0.3] * 4000)
    hot(optimizer.stats, list(range(4000)))
    with torch.no_grad():
        optimizer.model._means.zero_()
        optimizer.model._rotations[:] = torch.tensor([0.9, 0.1, -0.3, 0.2])
    rotation = quaternion_to_matrix(optimizer.model._rotations[:1])[0]
    split(optimizer, PARAMS, MANY, rng())
    local = optimizer.model.means @ rotation
    torch.testing.assert_close(local.std(dim=0), torch.tensor([0.3, 0.03, 0.03]), rtol=0.05, atol=0)
    assert local.mean(dim=0).norm() < 0.02


@pytest.mark.parametrize(("limit", "left"), [(None, 2), (20.0, 1), (21.0, 2)])
def test_prune_removes_the_faint_and_later_the_large(limit: float | None, left: int) -> None:
    """A size on the screen counts where a limit is given, and only there, as in the originals."""
    params = PARAMS.model_copy(update={"max_screen_radius": limit})
    optimizer = build([0.05, 0.05, 0.3, 0.05], [0.5, 0.004, 0.5, 0.4])
    optimizer.stats.max_radii[3] = 21.0
    assert prune(optimizer, params, large_too=False) == 1
    assert len(optimizer.model) == len(optimizer.stats.views) == 3
    assert prune(optimizer, params, large_too=True) == 3 - left
    assert len(optimizer.model) == left


def test_pruning_never_removes_the_last_one() -> None:
    optimizer = build([0.05, 0.05], [0.001, 0.002])
    assert prune(optimizer, PARAMS, large_too=True) == 1
    assert optimizer.model.opacities.item() == pytest.approx(0.002)


def test_the_number_of_gaussians_is_capped_and_the_strongest_win() -> None:
    optimizer = build([0.05] * 5)
    optimizer.stats.views += 1
    optimizer.stats.gradient_sum[:] = torch.tensor([1.0, 5.0, 2.0, 3.0, 4.0])
    means = optimizer.model.means.detach().clone()
    assert clone(optimizer, PARAMS, 6) == 1
    assert torch.equal(optimizer.model.means[5], means[1])
    hot(optimizer.stats, list(range(6)))
    assert clone(optimizer, PARAMS, 6) == 0
    optimizer = build([0.3] * 5)
    hot(optimizer.stats, list(range(5)))
    assert split(optimizer, PARAMS, 6, rng()) == 1
    assert len(optimizer.model) == 6


def test_opacity_reset_lowers_only_and_forgets_the_moments() -> None:
    optimizer = build([0.1, 0.1], [0.9, 0.002])
    reset_opacity(optimizer)
    assert optimizer.model.opacities[:, 0].tolist() == pytest.approx([0.01, 0.002], rel=1e-4)
    assert not optimizer.adam.state[optimizer.model._opacities]["exp_avg"].any()
    assert optimizer.adam.state[optimizer.model._means]["exp_avg"].any()


def test_scales_are_capped() -> None:
    optimizer = build([0.5, 0.01])
    cap_scales(optimizer, 0.03)
    assert optimizer.model.scales.amax(dim=1).tolist() == pytest.approx([0.03, 0.01])


OPACITIES = torch.tensor([0.01, 0.3, 0.9, 0.999], dtype=torch.float64)


@pytest.mark.parametrize("copies", [1, 2, 3, 7, 12])
def test_copies_compose_to_the_original(copies: int) -> None:
    n = torch.full((4,), copies)
    o = shared_opacity(OPACITIES, n)
    torch.testing.assert_close(1 - (1 - o) ** copies, OPACITIES)
    # 3DGS-MCMC Eq. 9 as printed; exact enough in float64 for a dozen copies.
    total = torch.zeros(4, dtype=torch.float64)
    for i in range(1, copies + 1):
        for k in range(i):
            total += math.comb(i - 1, k) * (-1) ** k * o ** (k + 1) / math.sqrt(k + 1)
    torch.testing.assert_close(shared_scale(OPACITIES, n), OPACITIES / total, rtol=1e-8, atol=0)


def test_scales_of_very_many_copies_stay_sane() -> None:
    factors = [shared_scale(OPACITIES, torch.full((4,), n)) for n in (1, 10, 100, 10_000)]
    for fewer, more in pairwise(factors):
        assert bool(((more > 0) & (more <= fewer)).all())


def test_relocation_moves_the_faint_onto_the_opaque() -> None:
    opacities = [0.8, 0.001, 0.002, 0.6, 0.003]
    optimizer = build([0.1] * 5, opacities)
    optimizer.stats.views += 3
    old = optimizer.model.state_dict()
    old = {name: tensor.clone() for name, tensor in old.items()}
    assert relocate(optimizer, rng()) == 3
    model = optimizer.model
    assert len(model) == 5
    total = torch.zeros(2, dtype=torch.float64)
    for slot, target in enumerate((0, 3)):
        same = (model._features_dc == old["f_dc"][target]).flatten(1).all(dim=1)
        members = same.nonzero()[:, 0].tolist()
        together = 1 - torch.prod(1 - model.opacities[members, 0].double())
        assert together.item() == pytest.approx(opacities[target], rel=1e-4)
        distances = (model.means[members] - old["xyz"][target]).norm(dim=1)
        assert distances[members.index(target)] == 0
        assert bool((distances < 0.25 * 4 * 0.1 * 1.5).all())
        assert torch.equal(model._scales[members], model._scales[target].expand(len(members), 3))
        total[slot] = len(members)
        if len(members) > 1:
            assert bool((model.scales[target] < old["scaling"][target].exp()).all())
            assert not optimizer.stats.views[members].any()
            assert not optimizer.adam.state[model._means]["exp_avg"][members].any()
    assert total.sum() == 5


@pytest.mark.parametrize("logit", [16.0, 20.0, 60.0])
def test_relocation_onto_gaussians_as_opaque_as_float32_can_tell_stays_finite(logit: float) -> None:
    optimizer = build([0.1] * 3, [0.5, 0.001, 0.001])
    optimizer.replace("opacity", torch.tensor([[logit]]), torch.tensor([0]))
    assert relocate(optimizer, rng()) == 2
    assert not optimizer.model.nonfinite()
    # Three copies have the cube root of what light the one lets through: 1 - sigmoid(x) is about exp(-x).
    expected = min(logit, 36.0) / 3
    assert optimizer.model._opacities[:, 0].tolist() == pytest.approx([expected] * 3, abs=0.02)


def test_relocation_draws_in_proportion_to_opacity() -> None:
    optimizer = build([0.1] * 3002, [0.75, 0.25] + [0.001] * 3000)
    colour = optimizer.model._features_dc[0].detach().clone()
    relocate(optimizer, rng())
    share = (optimizer.model._features_dc == colour).flatten(1).all(dim=1).sum().item() / 3002
    assert share == pytest.approx(0.75, abs=0.03)


def test_relocation_with_none_faint_or_none_opaque_does_nothing() -> None:
    for opacities in ([0.5, 0.5], [0.001, 0.001]):
        optimizer = build([0.1, 0.1], opacities)
        assert relocate(optimizer, rng()) == 0


def test_refine_keeps_the_calendar() -> None:
    params = OptimizationParams(
        densify_from_iter=100,
        densify_until_iter=500,
        densification_interval=50,
        opacity_reset_interval=200,
        relocate_interval=300,
        iterations=600,
        percent_dense=0.05,
    )
    cloned, resets, moved = [], [], []
    for step in (1, 50, 99, *range(100, 601, 25)):
        optimizer = build([0.05, 0.05], [0.5, 0.001], params)
        hot(optimizer.stats, [0])
        done = refine(optimizer, params, step, MANY, rng())
        if done.cloned:
            cloned.append(step)
            assert (done.pruned, len(optimizer.model)) == (1, 2)
            assert not optimizer.stats.views.any()
        if done.opacity_reset:
            resets.append(step)
        if done.relocated:
            moved.append(step)
    assert cloned == [150, 200, 250, 300, 350, 400, 450]
    assert resets == [200, 400]
    # At 300 pruning had left nothing to move; after the last iteration nothing moves.
    assert moved == []
    params = params.model_copy(update={"densify_until_iter": 0})
    for step in (299, 300, 600):
        optimizer = build([0.05, 0.05], [0.5, 0.001], params)
        moved.append(refine(optimizer, params, step, MANY, rng()).relocated)
    assert moved == [0, 1, 0]


def test_the_last_iteration_resets_no_opacity() -> None:
    """Nobody would bring it back: the asset would be all but invisible."""
    params = PARAMS.model_copy(
        update={"opacity_reset_interval": 100, "densify_until_iter": 500, "iterations": 300}
    )
    done = [refine(build([0.1], [0.9], params), params, step, MANY, rng()) for step in (200, 300)]
    assert [each.opacity_reset for each in done] == [True, False]


def test_refine_leaves_a_geometry_that_is_kept_alone() -> None:
    params = OptimizationParams(
        keep="geometry",
        densify_from_iter=0,
        densification_interval=1,
        opacity_reset_interval=2,
        relocate_interval=1,
    )
    optimizer = build([0.05, 0.5, 0.05], [0.5, 0.5, 0.001])
    hot(optimizer.stats, [0, 1])
    before = optimizer.model.state_dict()
    for step in range(1, 12):
        assert not refines(params, step)
        assert not grows(params, step)
        assert refine(optimizer, params, step, MANY, rng()) == Refinement()
    assert all(torch.equal(tensor, before[name]) for name, tensor in optimizer.model.state_dict().items())


def test_the_same_seed_refines_the_same() -> None:
    results = []
    for _ in range(2):
        optimizer = build([0.3] * 10, [0.5] * 8 + [0.001] * 2)
        hot(optimizer.stats, list(range(5)))
        generator = rng()
        split(optimizer, PARAMS, MANY, generator)
        relocate(optimizer, generator)
        results.append(optimizer.model.state_dict())
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
