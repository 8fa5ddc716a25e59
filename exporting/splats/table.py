"""Table that all formats are written from: N Gaussians as NumPy arrays, in the axes of the file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scene.gaussian_model import GaussianModel
from utils.spherical_harmonics import Y00, degree_of

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Splats:
    """Values of N Gaussians.

    means, log_scales [N, 3]; rotations [N, 4], unit quaternions (w, x, y, z); opacities [N] in [0, 1];
    harmonics [N, K, 3], the first one constant; all float32.
    """

    means: Floats
    log_scales: Floats
    rotations: Floats
    opacities: Floats
    harmonics: Floats

    @staticmethod
    def of(gaussians: GaussianModel) -> Splats:
        """The values of Gaussians."""
        rotations = gaussians.rotations.double().numpy(force=True)
        norms = np.linalg.norm(rotations, axis=1, keepdims=True)
        # A quaternion of length 0 stands for no rotation.
        rotations = np.where(norms > 0, rotations / np.maximum(norms, 1e-300), [1.0, 0.0, 0.0, 0.0])
        return Splats(
            means=gaussians.means.numpy(force=True),
            log_scales=gaussians.raw()["scaling"].numpy(force=True),
            rotations=rotations.astype(np.float32),
            opacities=gaussians.opacities[:, 0].numpy(force=True),
            harmonics=gaussians.shs.numpy(force=True),
        )

    def __len__(self) -> int:
        return len(self.means)

    def rows(self, index: NDArray[np.integer]) -> Splats:
        """The Gaussians that `index` [M] names."""
        return Splats(
            self.means[index],
            self.log_scales[index],
            self.rotations[index],
            self.opacities[index],
            self.harmonics[index],
        )

    @property
    def sh_degree(self) -> int:
        return degree_of(self.harmonics.shape[1])

    @property
    def colors(self) -> Floats:
        """The constant colour [N, 3]; 0 and 1 are the darkest and the brightest, but it may lie beyond."""
        return self.harmonics[:, 0] * np.float32(Y00) + np.float32(0.5)


def to_bytes(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Whole numbers from 0 to 255, the nearest ones."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def smallest_three(rotations: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Unit quaternions [N, 4] by three numbers: the place of the component of the largest magnitude [N], and the other
    components [N, 3] in their order, in [-√½, √½], of the one of q and -q in which the largest is positive."""
    largest = np.abs(rotations).argmax(axis=1)
    rows = np.arange(len(rotations))
    positive = rotations * np.where(rotations[rows, largest] < 0, -1, 1)[:, None].astype(rotations.dtype)
    others = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])[largest]
    return largest, np.take_along_axis(positive, others, axis=1)


def morton_order(means: Floats) -> NDArray[np.intp]:
    """An order [N] in which neighbours in the file are mostly neighbours in space: Morton's (1966) curve."""
    low, high = means.min(axis=0), means.max(axis=0)
    cells = ((means - low) / np.maximum(high - low, 1e-30) * 1023).astype(np.uint32)
    code = np.zeros(len(means), dtype=np.uint32)
    for bit in range(10):
        for axis in range(3):
            code |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    return np.argsort(code, kind="stable")
