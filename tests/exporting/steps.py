"""Steps of each format of Gaussians, and how far what is read may be from what was written for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.spatial import cKDTree

from scene.splats.table import Splats


class Values(Protocol):
    """Gaussians with the fields of `Splats`; quaternions may have any length."""

    @property
    def means(self) -> np.ndarray: ...
    @property
    def log_scales(self) -> np.ndarray: ...
    @property
    def rotations(self) -> np.ndarray: ...
    @property
    def opacities(self) -> np.ndarray: ...
    @property
    def harmonics(self) -> np.ndarray: ...


@dataclass
class Tolerance:
    """The largest difference: half of a format's step."""

    means: float
    log_scales: float
    rotations: float
    opacities: float
    dc: float
    rest: float


HALF_BYTE = 0.5 / 255 + 1e-6
SPZ = Tolerance(2**-14, 0.5 / 16 + 1e-6, 0.005, HALF_BYTE, HALF_BYTE / 0.15, 0.5 / 128 + 1e-6)
EXACT = Tolerance(1e-6, 1e-5, 1e-5, 1e-6, 1e-6, 1e-6)
STEPS = {
    ".ply": Tolerance(1e-6, 1e-6, 1e-5, 1e-6, 1e-6, 1e-6),
    ".splat": Tolerance(1e-6, 1e-5, 0.02, HALF_BYTE, HALF_BYTE / 0.282, 0),
    ".splat.glb": EXACT,
    ".spz": SPZ,
    ".spz.glb": SPZ,
    ".splat.usdc": EXACT,
    ".splat.usdz": EXACT,
    # Relative to the bounds of a chunk, which are those of the asset at most.
    ".compressed.ply": Tolerance(
        0.5 * 4 / 1023, 0.5 * 8 / 1023, 0.005, HALF_BYTE, HALF_BYTE / 0.282, 4 / 256 + 1e-5
    ),
    ".sog": Tolerance(1e-4, 0.05, 0.015, HALF_BYTE, 0.03, 0.03),
}


def assert_within(found: Values, truth: Splats, step: Tolerance) -> None:
    """Check that what is found is what was written, in any order, within half of a step."""
    distance, row = cKDTree(truth.means).query(found.means)
    assert sorted(row) == list(range(len(truth.means)))
    truth = truth.rows(row)
    assert np.abs(found.means - truth.means).max() <= step.means
    assert distance.max() <= 2 * step.means
    assert np.abs(found.log_scales - truth.log_scales).max() <= step.log_scales
    assert np.abs(found.opacities - truth.opacities).max() <= step.opacities
    unit = found.rotations / np.linalg.norm(found.rotations, axis=1, keepdims=True)
    cosines = np.abs((unit * truth.rotations).sum(axis=1))
    assert np.sqrt(np.maximum(0, 2 - 2 * cosines)).max() <= step.rotations + 1e-3
    assert np.abs(found.harmonics[:, 0] - truth.harmonics[:, 0]).max() <= step.dc
    if step.rest > 0:
        assert found.harmonics.shape == truth.harmonics.shape
        assert np.abs(found.harmonics - truth.harmonics)[:, 1:].max(initial=0) <= step.rest
