from __future__ import annotations

import pytest
import torch
from torch import Tensor

from config.schema import OptimizationParams
from scene.gaussian_model import ATTRIBUTES, COLOR, GEOMETRY, GaussianModel
from scene.optimizer import MOMENTS, GaussianOptimizer

PARAMS = OptimizationParams(iterations=1000, grad_clip=[])


def build(count: int = 12, degree: int = 1, params: OptimizationParams = PARAMS) -> GaussianOptimizer:
    rng = torch.Generator().manual_seed(0)
    points, colors = torch.rand(2, count, 3, generator=rng)
    return GaussianOptimizer(GaussianModel.from_points(points, colors, degree), params, extent=2.0)


def targets(model: GaussianModel) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(9)
    return {name: torch.randn(p.shape, generator=rng) for name, p in model.raw().items()}


def train(optimizer: GaussianOptimizer, goal: dict[str, Tensor], steps: range) -> None:
    """Each row of each group is drawn to its goal; rows do not influence each other."""
    for step in steps:
        raw = optimizer.model.raw()
        torch.stack([(raw[name] - goal[name]).pow(4).sum() for name in raw]).sum().backward()
        optimizer.step(step)


def assert_same(a: GaussianModel, b: dict[str, Tensor], tolerance: float = 0.0) -> None:
    for name, parameter in a.raw().items():
        torch.testing.assert_close(parameter.detach(), b[name], rtol=0.0, atol=tolerance)


def test_pruned_training_equals_training_of_the_kept_rows_alone() -> None:
    mask = torch.tensor([True, False, True] * 4)
    whole = build()
    goal = targets(whole.model)
    alone = GaussianOptimizer(
        GaussianModel({n: p.detach()[mask] for n, p in whole.model.raw().items()}), PARAMS, extent=2.0
    )
    kept_goal = {name: tensor[mask] for name, tensor in goal.items()}
    train(whole, goal, range(1, 6))
    whole.keep(mask)
    train(whole, kept_goal, range(6, 12))
    train(alone, kept_goal, range(1, 12))
    # Only the rounding of vector instructions depends on the number of rows.
    assert_same(whole.model, alone.model.state_dict(), tolerance=1e-6)


def test_appending_leaves_old_rows_untouched_and_gives_new_ones_zero_moments() -> None:
    grown, plain = build(), build()
    goal = targets(grown.model)
    for optimizer in (grown, plain):
        train(optimizer, goal, range(1, 6))
    rows = {name: torch.randn(3, *p.shape[1:]) for name, p in grown.model.raw().items()}
    grown.append(rows)
    assert len(grown.model) == 15
    for name, parameter in grown.model.raw().items():
        assert torch.equal(parameter[12:], rows[name])
        for key in MOMENTS:
            assert bool((grown.adam.state[parameter][key][12:] == 0).all())
    train(grown, {n: torch.cat([g, torch.zeros(3, *g.shape[1:])]) for n, g in goal.items()}, range(6, 12))
    train(plain, goal, range(6, 12))
    old_rows = {name: p.detach()[:12] for name, p in grown.model.raw().items()}
    assert_same(plain.model, old_rows, tolerance=1e-6)


def test_replacing_rows_clears_their_moments_only() -> None:
    optimizer = build()
    train(optimizer, targets(optimizer.model), range(1, 4))
    parameter = optimizer.model._opacities
    before = optimizer.adam.state[parameter]["exp_avg"].clone()
    rows = torch.tensor([2, 5])
    optimizer.replace("opacity", torch.tensor([[1.0], [2.0]]), rows)
    assert optimizer.model._opacities is parameter
    assert parameter[rows, 0].tolist() == [1.0, 2.0]
    after = optimizer.adam.state[parameter]["exp_avg"]
    assert after[rows].tolist() == [[0.0], [0.0]]
    others = torch.tensor([i for i in range(12) if i not in (2, 5)])
    assert torch.equal(after[others], before[others])
    optimizer.replace("opacity", torch.zeros(12, 1))
    assert not optimizer.adam.state[parameter]["exp_avg_sq"].any()


def test_surgery_before_the_first_step_and_with_empty_groups() -> None:
    optimizer = build(degree=0)
    optimizer.keep(torch.arange(12) < 4)
    optimizer.append({name: p.detach() for name, p in optimizer.model.raw().items()})
    assert len(optimizer.model) == 8
    goal = targets(optimizer.model)
    train(optimizer, goal, range(1, 3))
    optimizer.keep(torch.zeros(8, dtype=torch.bool))
    assert len(optimizer.model) == 0


def test_the_optimizer_updates_what_the_model_holds() -> None:
    optimizer = build()
    optimizer.keep(torch.arange(12) != 3)
    held = optimizer.model.raw()
    for group in optimizer.adam.param_groups:
        assert group["params"] == [held[group["name"]]]
        assert held[group["name"]].requires_grad
    assert set(optimizer.adam.state) <= set(held.values())


def test_rates_follow_the_schedules() -> None:
    optimizer = build()
    first, middle, last = (optimizer.rates(step) for step in (0, 500, 1000))
    assert first["xyz"] == pytest.approx(2.0 * 1.6e-4)
    assert last["xyz"] == pytest.approx(2.0 * 1.6e-6)
    assert middle["xyz"] == pytest.approx(2.0 * 1.6e-5)
    assert (first["f_dc"], last["f_dc"]) == (pytest.approx(5e-3), pytest.approx(3e-3))
    assert (first["scaling"], last["scaling"]) == (pytest.approx(5e-3), pytest.approx(1e-3))
    assert (first["rotation"], last["rotation"]) == (pytest.approx(1e-3), pytest.approx(2e-4))
    assert first["opacity"] == last["opacity"] == 0.05
    assert first["f_rest"] == last["f_rest"] == 5e-3 / 20
    train(optimizer, targets(optimizer.model), range(500, 501))
    assert {g["name"]: g["lr"] for g in optimizer.adam.param_groups} == middle


@pytest.mark.parametrize(("keep", "groups"), [("nothing", ()), ("geometry", GEOMETRY), ("color", COLOR)])
def test_what_is_kept_gets_no_gradient_and_no_update(keep: str, groups: tuple[str, ...]) -> None:
    optimizer = build(params=PARAMS.model_copy(update={"keep": keep}))
    goal, begun = targets(optimizer.model), optimizer.model.state_dict()
    mask = torch.arange(12) != 3

    def unchanged() -> set[str]:
        return {name for name, p in optimizer.model.raw().items() if torch.equal(p, begun[name])}

    train(optimizer, goal, range(1, 4))
    assert unchanged() == {*groups}
    # Rows that come and go change nothing of it.
    optimizer.keep(mask)
    rows = {name: tensor[:2] for name, tensor in begun.items()}
    optimizer.append(rows)
    begun, goal = (
        {name: torch.cat([tensor[mask], tensor[:2]]) for name, tensor in of.items()} for of in (begun, goal)
    )
    train(optimizer, goal, range(4, 7))
    assert unchanged() == {*groups}
    assert set(optimizer.moments()) == set(ATTRIBUTES) - {*groups}
    assert {name for name, rate in optimizer.rates(5).items() if rate == 0} == {*groups}


def test_the_groups_are_all_there_are() -> None:
    assert sorted((*COLOR, *GEOMETRY)) == sorted(ATTRIBUTES)


def gradients_at_adam(optimizer: GaussianOptimizer, step: int) -> dict[str, float]:
    """The norms of the gradients that Adam gets in `step`."""
    seen: dict[str, float] = {}

    def look(*_: object) -> None:
        raw = optimizer.model.raw()
        seen.update({name: float(p.grad.norm()) for name, p in raw.items() if p.grad is not None})

    hook = optimizer.adam.register_step_pre_hook(look)
    norms = optimizer.step(step).gradients
    hook.remove()
    assert float(norms["xyz"]) == pytest.approx(600.0)
    return seen


def test_each_group_is_clipped_by_itself_and_the_limit_rises() -> None:
    optimizer = build(params=OptimizationParams(grad_clip=(2.0, 8.0, 1000)))
    for step, limit in ((0, 2.0), (500, 5.0), (3000, 8.0)):
        for name, parameter in optimizer.model.raw().items():
            parameter.grad = torch.full_like(parameter, 100.0 if name == "xyz" else 1e-3)
        clipped = gradients_at_adam(optimizer, step)
        assert clipped["xyz"] == pytest.approx(limit, rel=1e-4)
        assert clipped["f_dc"] == pytest.approx(6e-3, rel=1e-4)


def test_without_a_limit_gradients_stay() -> None:
    optimizer = build()
    optimizer.model._means.grad = torch.full_like(optimizer.model._means, 100.0)
    assert gradients_at_adam(optimizer, 1) == {"xyz": pytest.approx(600.0)}


@pytest.mark.parametrize("of", ["gradient", "parameter"])
def test_a_step_with_a_number_that_is_not_finite_changes_nothing(of: str) -> None:
    """A bad step changes nothing: neither the first one, when Adam has no moments yet, nor a later one."""
    optimizer, untouched = build(), build()
    goal = targets(optimizer.model)
    for step in (1, 2, 3):
        for parameter in optimizer.model.raw().values():
            parameter.grad = torch.ones_like(parameter)
        broken = optimizer.model._scales
        with torch.no_grad():
            (broken.grad if of == "gradient" else broken)[4, 1] = float("nan")  # type: ignore[index]
        before = optimizer.model.state_dict()
        update = optimizer.step(step)
        assert not bool(update.made)
        assert [n for n, norm in update.gradients.items() if not norm.isfinite()] == ["scaling"] * (
            of == "gradient"
        )
        assert [n for n, norm in update.parameters.items() if not norm.isfinite()] == ["scaling"] * (
            of == "parameter"
        )
        for name, parameter in optimizer.model.raw().items():
            torch.testing.assert_close(parameter.detach(), before[name], rtol=0, atol=0, equal_nan=True)
            assert parameter.grad is None
        with torch.no_grad():
            broken[4, 1] = untouched.model._scales[4, 1]
        train(optimizer, goal, range(step, step + 1))
        train(untouched, goal, range(step, step + 1))
        assert_same(optimizer.model, untouched.model.state_dict())


def test_dimming_is_decided_on_the_device() -> None:
    optimizer = build()
    train(optimizer, targets(optimizer.model), range(1, 3))
    before = optimizer.model.state_dict()
    optimizer.dim("f_dc", 0.5, torch.tensor(False))
    assert_same(optimizer.model, before)
    assert optimizer.moments()["f_dc"]["exp_avg"].any()
    optimizer.dim("f_dc", 0.5, torch.tensor(True))
    assert_same(optimizer.model, {**before, "f_dc": 0.5 * before["f_dc"]})
    assert not optimizer.moments()["f_dc"]["exp_avg"].any()
    assert optimizer.moments()["opacity"]["exp_avg"].any()


def test_a_checkpoint_continues_exactly() -> None:
    source = build()
    goal = targets(source.model)
    train(source, goal, range(1, 5))
    model = GaussianModel(source.model.state_dict())
    resumed = GaussianOptimizer(model, PARAMS, extent=2.0)
    resumed.set_moments(source.moments())
    for optimizer in (source, resumed):
        train(optimizer, goal, range(5, 9))
    assert_same(source.model, resumed.model.state_dict())
    other = build(count=5)
    with pytest.raises(ValueError, match="Adam's exp_avg of xyz"):
        other.set_moments(source.moments())


def test_wrong_masks_and_rows_are_named() -> None:
    optimizer = build()
    with pytest.raises(ValueError, match="mask is"):
        optimizer.keep(torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="mask is"):
        optimizer.keep(torch.ones(12))
    with pytest.raises(ValueError, match="rows holds"):
        optimizer.append({name: torch.zeros(1) for name in list(ATTRIBUTES)[:2]})
