"""Whole iterations, which fill the device's queue without ever looking at what is in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

import training.step
from config import Config
from iterations.null_device import move_to_null_device, null_device
from scene.cameras import Cameras
from scene.optimizer import GaussianOptimizer
from scene.statistics import DensificationStats
from tests.changed import changed
from tests.waits import DEVICE, Wait, no_waits
from training.faults import settle
from training.state import Training, assemble
from training.step import training_step
from utils.ranks import Ranks


@pytest.fixture(autouse=True)
def _device() -> Iterator[None]:
    with null_device():
        yield


def on_the_device(config: Config) -> Training:
    """Start a run and move its Gaussians, networks and embeddings to where nobody may look."""
    state = assemble(config)
    move_to_null_device(state)
    return state


KEYS = {
    "C_batch_size": 2,
    "bg_aug_ratio": 1,
    "flip_aug_ratio": 0.5,
    "shs_aug_ratio": 0.5,
    "scale_aug_ratio": 1,
    "sh_degree": 1,
    "jitter_pose": True,
    "lambda_alpha": 1.0,
    "lambda_alpha_binary": 1.0,
    "max_scale": 0.1,
    "min_color": 0.1,
    "BEG": True,
    "start_reset_iter": 0,
    "densify_from_iter": 100,
}


@pytest.mark.parametrize(
    ("method", "keep"),
    [
        *((method, "nothing") for method in ("sds", "ism", "cds", "gcs", "sctd")),
        pytest.param("sds", "geometry", marks=pytest.mark.thorough),
        pytest.param("sds", "color", marks=pytest.mark.thorough),
    ],
)
def test_an_iteration_waits_for_nothing(tiny_config: Config, method: str, keep: str) -> None:
    """Iterations wait for nothing, with all views at once or in parts; the log does wait."""
    state = on_the_device(changed(tiny_config, guidance_type=method, keep=keep, **KEYS))
    with no_waits():
        iteration = training_step(state, 1)
        state.counts.views_at_once = 1
        training_step(state, 2)
        assert iteration.numbers["loss/guidance"].device == DEVICE  # type: ignore[union-attr]
        assert len(state.noted) == 2
        with pytest.raises(Wait):
            settle(state)


def test_waits_in_an_iteration_are_seen(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these faults is one that an earlier version had."""
    measure, seen = GaussianOptimizer._measure, training.step.what_was_seen

    def looks_at_norms(self: GaussianOptimizer) -> Any:
        update = measure(self)
        [float(norm) for norm in update.gradients.values()]
        return update

    def copies_and_waits(self: Cameras, device: torch.device) -> Cameras:
        return self._map(lambda tensor: tensor.to(device))

    def masks(parts: Sequence[Any], cameras: Cameras, ranks: Ranks) -> DensificationStats:
        found = seen(parts, cameras, ranks)
        found.views[found.max_radii > 0] += 1
        return found

    for owner, name, fault in (
        (GaussianOptimizer, "_measure", looks_at_norms),
        (Cameras, "to", copies_and_waits),
        (training.step, "what_was_seen", masks),
    ):
        with monkeypatch.context() as patch:
            state = on_the_device(changed(tiny_config, **KEYS))
            patch.setattr(owner, name, fault)
            with no_waits(), pytest.raises(Wait):
                training_step(state, 1)
