from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import point_e_reference as reference
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import HEADS, POINTS, STAGES, condition_of, model_of
from torch import Tensor, nn

from point_e.models import ModelConfig, StageConfig
from point_e.sampler import Condition, Denoiser, dynamic_clip, heun, karras_sigmas, sample

LOWEST = torch.tensor([-0.5, -0.5, -0.5, 0, 0, 0])
HIGHEST = torch.tensor([0.5, 0.5, 0.5, 255, 255, 255])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noises(seed: int, shape: tuple[int, ...]) -> Iterator[Tensor]:
    rng = seeded(seed)
    while True:
        yield torch.randn(shape, generator=rng).double()


def expected(stage: StageConfig, told: Condition, batch: int, seed: int, steps: int, scale: float) -> Tensor:
    """Clouds [B, N, 6] by the reference, with zeros for every condition as classifier-free guidance's other half."""
    state, abar = model_of(stage).state_dict(), reference.alphas_cumprod(stage.schedule, stage.timesteps)
    clip_name = "vector" if stage.model.clip == "vector" else "grid"

    def x0(x: Tensor, sigma: float, factor: float) -> Tensor:
        conditions = {clip_name: told.clip, "coarse": told.coarse}
        kept = {name: factor * value for name, value in conditions.items() if value is not None}
        eps = lambda x_t, t: reference.transformer(state, HEADS, x_t, t, **kept)[..., :6]  # noqa: E731
        return reference.predict(eps, x, sigma, abar)

    def guided(x: Tensor, sigma: float) -> Tensor:
        nothing = x0(x, sigma, 0.0)
        return nothing + scale * (x0(x, sigma, 1.0) - nothing)

    drawn = noises(seed, (batch, stage.model.n_ctx, 6))
    sigmas = reference.karras_sigmas(steps, stage.sigma_min, stage.sigma_max)
    x = reference.heun(guided, next(drawn), sigmas, stage.s_churn, drawn)
    points = (x - x.new_tensor(reference.BIASES)) / x.new_tensor(reference.SCALES)
    return points if told.coarse is None else torch.cat([told.coarse, points], dim=1)


def in_model_units(clouds: Tensor) -> Tensor:
    return clouds.double() * torch.tensor(reference.SCALES).double() + torch.tensor(reference.BIASES).double()


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize(("scale", "s_churn"), [(0, 3), (0.5, 0), (1, 0), (1, 3), (3, 0), (3, 3)])
def test_equals_the_reference(name: str, scale: float, s_churn: float) -> None:
    stage = replace(STAGES[name], s_churn=s_churn)
    told = condition_of(stage, 2)
    found = sample(model_of(stage), stage, told, 2, seeded(5), steps=5, scale=scale)
    truth = expected(stage, told, 2, 5, 5, scale)
    found, truth = in_model_units(found), in_model_units(truth)
    assert (found - truth).abs().max() < 1e-9 * truth.abs().max()


@pytest.mark.parametrize("name", ["vector", "upsampler"])
def test_single_precision_equals_the_reference(name: str) -> None:
    stage = replace(STAGES[name], s_churn=0)
    told = condition_of(stage, 2)
    single = Condition(**{key: value.float() for key, value in told.tensors().items()})
    found = sample(model_of(stage).float(), stage, single, 2, seeded(5), steps=8, scale=1)
    truth = expected(stage, told, 2, 5, 8, 1)
    assert (in_model_units(found) - in_model_units(truth)).abs().max() < 1e-5


class Counted:
    """Model that reports how many clouds it gets in each call."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.calls = model, []

    def __call__(self, x: Tensor, t: Tensor, **told: Tensor) -> Tensor:
        self.calls.append(len(x))
        return self.model(x, t, **told)


def denoised(name: str, scale: float, clip: str = "none", factor: float = 1.0) -> tuple[Tensor, list[int]]:
    """Estimates x_0 of two clouds at σ = 3 and the sizes of the calls; factor: of the conditions."""
    stage = STAGES[name]
    model = Counted(model_of(stage))
    told = {key: factor * value for key, value in condition_of(stage, 2).tensors().items()}
    x = 3 * next(noises(6, (2, POINTS, 6)))
    return Denoiser(model, stage, Condition(**told), scale, clip)(x, 3.0), model.calls


@pytest.mark.parametrize("name", ["vector", "grid", "upsampler"])
@pytest.mark.parametrize("clip", ["none", "static", "dynamic"])
def test_guidance_of_nothing_and_of_the_condition_alone(name: str, clip: str) -> None:
    nothing, calls = denoised(name, 0, clip)
    assert calls == [2]
    torch.testing.assert_close(nothing, denoised(name, 1, clip, factor=0.0)[0])
    told, calls = denoised(name, 1, clip)
    assert calls == [2]
    almost, calls = denoised(name, 1 + 1e-12, clip)
    assert calls == [4]
    torch.testing.assert_close(told, almost)
    assert (told - nothing).abs().max() > 1e-3


def test_guidance_is_linear_without_clipping() -> None:
    nothing, told, much = (denoised("vector", scale)[0] for scale in (0, 1, 7.5))
    torch.testing.assert_close(much, nothing + 7.5 * (told - nothing))


def test_an_unconditional_model_is_not_guided() -> None:
    found = [denoised("unconditional", scale) for scale in (0, 1, 3)]
    assert all(torch.equal(x_0, found[0][0]) and calls == [2] for x_0, calls in found)


@pytest.mark.parametrize("name", STAGES)
def test_seeds_and_shape(name: str) -> None:
    stage = STAGES[name]
    model, told = model_of(stage), condition_of(stage, 2)
    make = partial(sample, model, stage, told, 2, steps=3)
    clouds = make(seeded(1))
    assert clouds.shape == (2, stage.model.cond_ctx + POINTS, 6)
    assert torch.equal(clouds, make(seeded(1)))
    assert not torch.allclose(clouds, make(seeded(2)), atol=0.1)
    if told.coarse is not None:
        assert torch.equal(clouds[:, : stage.model.cond_ctx], told.coarse)


@pytest.mark.parametrize(("clip", "scale"), [("static", 0), ("static", 1), ("dynamic", 1), ("dynamic", 10)])
def test_clouds_stay_in_the_cube_and_colours_from_0_to_255(clip: str, scale: float) -> None:
    stage = STAGES["vector"]
    clouds = sample(
        model_of(stage), stage, condition_of(stage, 3), 3, seeded(3), steps=6, scale=scale, clip=clip
    )
    slack = 1e-6 * HIGHEST[-1]
    assert (clouds >= LOWEST - slack).all()
    assert (clouds <= HIGHEST + slack).all()


@pytest.mark.parametrize("clip", ["none", "static", "dynamic"])
def test_a_cloud_is_the_same_alone_and_in_a_batch(clip: str) -> None:
    stage = STAGES["vector"]
    model, told = model_of(stage), condition_of(stage, 2)
    drawn = [noise for noise, _ in zip(noises(4, (2, POINTS, 6)), range(7), strict=False)]
    sigmas = karras_sigmas(6, stage.sigma_min, stage.sigma_max)

    def made(clouds: slice) -> Tensor:
        noise = (noise[clouds] for noise in drawn)
        denoise = Denoiser(model, stage, Condition(clip=told.clip[clouds]), 3.0, clip)
        return heun(denoise, sigmas[0] * next(noise), sigmas, 3.0, lambda: next(noise), lambda: None)

    both = made(slice(0, 2))
    for index in range(2):
        # Chaotic: the last bits of a matrix product may depend on the size of the batch.
        torch.testing.assert_close(
            made(slice(index, index + 1)), both[index : index + 1], rtol=1e-6, atol=1e-6
        )


def test_every_step_is_told() -> None:
    stage, told = STAGES["unconditional"], []
    sample(model_of(stage), stage, Condition(), 1, seeded(0), steps=5, on_step=lambda: told.append(None))
    assert len(told) == 5


@given(
    st.integers(2, 100), st.floats(1e-4, 1e-1), st.floats(1, 1e3), st.sampled_from([1.0, 3.0, 7.0])
)  # fmt: skip
def test_karras_sigmas(steps: int, low: float, high: float, rho: float) -> None:
    sigmas = karras_sigmas(steps, low, high, rho)
    np.testing.assert_allclose(sigmas, reference.karras_sigmas(steps, low, high, rho), rtol=1e-9)
    assert len(sigmas) == steps + 1
    assert sigmas[0] == pytest.approx(high)
    assert sigmas[-2] == pytest.approx(low)
    assert sigmas[-1] == 0
    assert (np.diff(sigmas) < 0).all()
    # Evenly spaced after the power 1/ρ.
    np.testing.assert_allclose(np.diff(np.array(sigmas[:-1]) ** (1 / rho), n=2), 0, atol=1e-9 * high)


MEAN, SPREAD = 0.3, 0.2


def denoise_gaussian(x: Tensor, sigma: float) -> Tensor:
    """Best estimate of x_0 of data of N(0.3, 0.2²)."""
    return (SPREAD**2 * x + sigma**2 * MEAN) / (SPREAD**2 + sigma**2)


def test_heun_is_of_second_order() -> None:
    start = 10 * next(noises(8, (1, 50, 6)))

    def error(steps: int) -> float:
        sigmas = karras_sigmas(steps, 0.05, 10.0)[:-1]
        x = heun(denoise_gaussian, start, sigmas, 0.0, lambda: start, lambda: None)
        shrunk = math.sqrt((SPREAD**2 + 0.05**2) / (SPREAD**2 + 10.0**2))
        return float((x - (MEAN + shrunk * (start - MEAN))).abs().max())

    slopes = [math.log2(error(steps) / error(2 * steps)) for steps in (32, 64)]
    assert all(1.8 < slope < 2.2 for slope in slopes), slopes


class Exact(nn.Module):
    """Perfect model of some data: eps from the expected x_0 of data whose noise level σ is that of t."""

    def __init__(self, stage: StageConfig, denoise: Callable[[Tensor, float], Tensor]) -> None:
        super().__init__()
        self.config, self.denoise = stage.model, denoise
        self.abar = reference.alphas_cumprod(stage.schedule)
        self.parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        abar = self.abar[int(t[0])]
        x_0 = self.denoise(x_t / math.sqrt(abar), math.sqrt(1 / abar - 1))
        return (x_t - math.sqrt(abar) * x_0) / math.sqrt(1 - abar)


def exact_stage(schedule: str, s_churn: float) -> StageConfig:
    return StageConfig(ModelConfig(1, 1, 1, n_ctx=500), schedule=schedule, s_churn=s_churn)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("s_churn", [0, 3])
def test_an_exact_model_of_a_gaussian_makes_it(schedule: str, s_churn: float) -> None:
    stage = exact_stage(schedule, s_churn)
    clouds = sample(Exact(stage, denoise_gaussian), stage, Condition(), 8, seeded(9), clip="none")
    x = in_model_units(clouds)
    # 24,000 numbers: their mean and deviation are known to about 0.5% of the deviation.
    assert abs(float(x.mean()) - MEAN) < 0.03 * SPREAD
    assert abs(float(x.std()) / SPREAD - 1) < 0.03


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("s_churn", [0, 3])
def test_an_exact_model_of_three_points_makes_them_evenly(schedule: str, s_churn: float) -> None:
    points = torch.tensor([[-0.8, 0.5, 0, 1, -1, 0.2], [0.8, 0.5, 0, -1, -1, 0.2], [0, -0.9, 0.1, 0, 1, 0]])
    points = points.double()

    def denoise(x: Tensor, sigma: float) -> Tensor:
        squared = (x[..., None, :] - points).square().sum(-1)
        return (-squared / (2 * sigma**2)).softmax(-1) @ points

    stage = exact_stage(schedule, s_churn)
    x = in_model_units(sample(Exact(stage, denoise), stage, Condition(), 1, seeded(9))[0])
    distance, nearest = torch.cdist(x, points).min(dim=1)
    assert distance.max() < 0.01
    # Of 500 points a third each, with a deviation of 10.
    assert (nearest.bincount(minlength=3) - 500 / 3).abs().max() < 50


@settings(max_examples=30)
@given(st.integers(0, 1000), st.floats(0.01, 30))
def test_dynamic_clipping(seed: int, size: float) -> None:
    x_0 = size * next(noises(seed, (2, 40, 6)))
    clipped = dynamic_clip(x_0)
    assert clipped.abs().max() <= 1
    assert torch.equal(clipped[1:], dynamic_clip(x_0[1:]))
    for cloud, before in zip(clipped, x_0, strict=True):
        if before.abs().max() <= 1:
            assert torch.equal(cloud, before)
        s = max(1.0, float(np.quantile(before.abs().numpy(), 0.995)))
        torch.testing.assert_close(cloud, before.clamp(-s, s) / s)
