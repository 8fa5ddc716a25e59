"""Table between files and the model: N Gaussians as NumPy arrays, in the axes of the file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scene.gaussian_model import GaussianModel
from scene.ply import OPAQUE
from utils.spherical_harmonics import Y00, degree_of

Floats = NDArray[np.float32]
Numbers = NDArray[np.floating]

MAX_COUNT = 10_000_000
"""Largest number of Gaussians that a packed file may claim, as in Niantic's own reader."""
FLAT = -20.0
"""Logarithm of the standard deviation that is taken for 0, which has none."""


@dataclass(frozen=True)
class Splats:
    """Values of N Gaussians.

    means, log_scales [N, 3]; rotations [N, 4], unit quaternions (w, x, y, z); opacities [N] in [0, 1];
    harmonics [N, K, 3], the first one constant; all float32. axes: the directions up and to the front, or
    None where a file has no note of them.
    """

    means: Floats
    log_scales: Floats
    rotations: Floats
    opacities: Floats
    harmonics: Floats
    axes: str | None = None

    @staticmethod
    def of(gaussians: GaussianModel, axes: str | None = None) -> Splats:
        """The values of Gaussians, which are in these axes."""
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
            axes=axes,
        )

    @staticmethod
    def of_file(
        means: Numbers,
        log_scales: Numbers,
        rotations: Numbers,
        opacities: Numbers,
        harmonics: Numbers,
        axes: str | None = None,
    ) -> Splats:
        """The values of a file, in float32; those too large for it become infinite."""
        with np.errstate(over="ignore", invalid="ignore"):
            return Splats(
                means.astype(np.float32),
                log_scales.astype(np.float32),
                rotations.astype(np.float32),
                opacities.astype(np.float32),
                harmonics.astype(np.float32),
                axes,
            )

    @staticmethod
    def joined(parts: Sequence[Splats], axes: str | None = None) -> Splats:
        """The values of one or more parts, in these axes; harmonics that a part lacks are 0."""
        most = max(part.harmonics.shape[1] for part in parts)
        return Splats(
            np.concatenate([part.means for part in parts]),
            np.concatenate([part.log_scales for part in parts]),
            np.concatenate([part.rotations for part in parts]),
            np.concatenate([part.opacities for part in parts]),
            np.concatenate(
                [
                    np.pad(part.harmonics, ((0, 0), (0, most - part.harmonics.shape[1]), (0, 0)))
                    for part in parts
                ]
            ),
            axes,
        )

    def raw(self, name: str) -> dict[str, Tensor]:
        """The groups of parameters of a GaussianModel, float32; opacities of 0 and 1 get a finite logit.

        Raises ValueError, with the file's name and the property, for values that are not finite.
        """
        for key, values in (
            ("position", self.means),
            ("scale", self.log_scales),
            ("rotation", self.rotations),
            ("opacity", self.opacities),
            ("colour", self.harmonics),
        ):
            bad = int(np.count_nonzero(~np.isfinite(values)))
            if bad:
                raise ValueError(f"{name!r} holds {bad} values of {key!r} that are not finite numbers.")
        harmonics, opacities = torch.from_numpy(self.harmonics), torch.from_numpy(self.opacities).double()
        return {
            "xyz": torch.from_numpy(self.means),
            "f_dc": harmonics[:, :1],
            "f_rest": harmonics[:, 1:],
            "opacity": torch.logit(opacities).clamp(-OPAQUE, OPAQUE).float()[:, None],
            "scaling": torch.from_numpy(self.log_scales),
            "rotation": torch.from_numpy(self.rotations),
        }

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
            self.axes,
        )

    @property
    def sh_degree(self) -> int:
        return degree_of(self.harmonics.shape[1])

    @property
    def colors(self) -> Floats:
        """The constant colour [N, 3]; 0 and 1 are the darkest and the brightest, but it may lie beyond."""
        return self.harmonics[:, 0] * np.float32(Y00) + np.float32(0.5)


def smallest_three(rotations: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Unit quaternions [N, 4] by three numbers: the place of the component of the largest magnitude [N], and the other
    components [N, 3] in their order, in [-√½, √½], of the one of q and -q in which the largest is positive."""
    largest = np.abs(rotations).argmax(axis=1)
    rows = np.arange(len(rotations))
    positive = rotations * np.where(rotations[rows, largest] < 0, -1, 1)[:, None].astype(rotations.dtype)
    return largest, np.take_along_axis(positive, OTHERS[largest], axis=1)


def from_smallest_three(largest: NDArray[np.integer], others: Numbers) -> Numbers:
    """Quaternions [N, 4] whose places and components `smallest_three` gives."""
    whole = np.empty((len(others), 4))
    np.put_along_axis(whole, OTHERS[largest], others, axis=1)
    last = np.sqrt(np.maximum(0, 1 - (others.astype(np.float64) ** 2).sum(axis=1)))
    np.put_along_axis(whole, np.asarray(largest, np.intp)[:, None], last[:, None], axis=1)
    return whole


OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
"""Places of the components beside that in each place."""


def harmonics_of_colors(colors: Numbers) -> Numbers:
    """The harmonics [N, 1, 3] of constant colours [N, 3]."""
    return ((colors - 0.5) / Y00)[:, None, :]


def log_scales_of(name: str, scales: Numbers) -> Numbers:
    """Logarithms of standard deviations of the file `name`.

    Raises ValueError, with its name, for negative ones and for NaN.
    """
    bad = int(np.count_nonzero(~(scales >= 0)))
    if bad:
        raise ValueError(f"{name!r} holds {bad} values of 'scale' that are not 0 or more.")
    return np.log(np.maximum(scales.astype(np.float64), math.exp(FLAT)))
