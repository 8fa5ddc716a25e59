from __future__ import annotations

import point_e_reference as reference
import pytest
import torch
from small_models import HEADS, POINTS, STAGES, condition_of, model_of
from torch import Tensor

from point_e.models import StageConfig
from point_e.sampler import Condition
from point_e.transformer import PointTransformer, timestep_embedding

TIMES = torch.tensor([0, 1023, 317])


def noisy_points(batch: int = len(TIMES)) -> Tensor:
    return torch.randn(batch, POINTS, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def expected(model: PointTransformer, stage: StageConfig, x: Tensor, t: Tensor, told: Condition) -> Tensor:
    """Noise eps [B, N, 6] by the reference."""
    kind = {"vector": "vector", "grid": "grid", "none": None}[stage.model.clip]
    clip = {kind: told.clip} if kind else {}
    double = {name: value.double() for name, value in model.state_dict().items()}
    return reference.transformer(double, HEADS, x.double(), t.double(), coarse=told.coarse, **clip)[..., :6]


def error(found: Tensor, truth: Tensor) -> float:
    """Error relative to the largest entry."""
    return float((found.double() - truth).abs().max() / truth.abs().max())


@pytest.mark.parametrize("name", STAGES)
def test_equals_the_reference(name: str) -> None:
    stage, x = STAGES[name], noisy_points()
    model, told = model_of(stage), condition_of(stage, len(x))
    truth = expected(model, stage, x, TIMES, told)
    assert error(model(x, TIMES, **told.tensors()), truth) < 1e-9

    single = {key: value.float() for key, value in told.tensors().items()}
    assert error(model.float()(x.float(), TIMES, **single), truth) < 1e-5


@pytest.mark.parametrize("name", STAGES)
def test_points_have_no_order_and_clouds_no_neighbours(name: str) -> None:
    stage, x = STAGES[name], noisy_points()
    model, told = model_of(stage), condition_of(stage, len(x)).tensors()
    order = torch.randperm(POINTS, generator=torch.Generator().manual_seed(3))
    eps = model(x, TIMES, **told)
    torch.testing.assert_close(model(x[:, order], TIMES, **told), eps[:, order])
    alone = {key: value[1:2] for key, value in told.items()}
    torch.testing.assert_close(model(x[1:2], TIMES[1:2], **alone), eps[1:2])


@pytest.mark.parametrize("name", ["vector", "grid", "upsampler"])
def test_everything_that_it_is_told_matters(name: str) -> None:
    stage, x = STAGES[name], noisy_points(1)
    model, told = model_of(stage), condition_of(stage, 1).tensors()
    t = TIMES[2:]
    eps = model(x, t, **told)
    assert error(model(x, t + 1, **told), eps) > 1e-4
    for key, value in told.items():
        assert error(model(x, t, **{**told, key: value.roll(1, -1)}), eps) > 1e-3


def test_single_precision_keeps_the_phase_of_late_timesteps() -> None:
    late = torch.arange(1000, 1024)
    embedding = timestep_embedding(late, 64, torch.float32)
    assert embedding.dtype == torch.float32
    torch.testing.assert_close(
        embedding, timestep_embedding(late, 64, torch.float64).float(), rtol=0, atol=1e-4
    )
