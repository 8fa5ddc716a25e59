"""The trained representation: N anisotropic 3D Gaussians with opacity and view-dependent colour."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from scene.ply import read_gaussians, write_gaussians
from simple_knn._C import distCUDA2
from utils.spherical_harmonics import degree_of, num_coefficients, rgb_to_dc

ATTRIBUTES = {
    "xyz": "_means",
    "f_dc": "_features_dc",
    "f_rest": "_features_rest",
    "opacity": "_opacities",
    "scaling": "_scales",
    "rotation": "_rotations",
}
"""Names of the parameter groups, as users of this family know them from TensorBoard, and our attributes."""

COLOR = ("f_dc", "f_rest")
GEOMETRY = ("xyz", "opacity", "scaling", "rotation")
"""Groups of parameters that make an asset's geometry; an opacity is a matter of where something is."""

SH_STEP = 500
"""Iterations between two rises of the degree of the harmonics in use (3DGS uses 1000, LucidDreamer 500)."""


def active_sh_degree(sh_degree: int, step: int) -> int:
    """Degree in use at iteration `step`: one more every SH_STEP iterations, up to the model's own."""
    return min(sh_degree, step // SH_STEP)


class GaussianModel:
    """N Gaussians as raw parameters (before activation), each a leaf with a gradient.

    _means [N, 3] world units · _features_dc [N, 1, 3] and _features_rest [N, K-1, 3] coefficients of
    spherical harmonics, K = (sh_degree + 1)² · _opacities [N, 1] logits · _scales [N, 3] natural logarithms
    of standard deviations · _rotations [N, 4] quaternions (w, x, y, z), not normalised.
    """

    _means: nn.Parameter
    _features_dc: nn.Parameter
    _features_rest: nn.Parameter
    _opacities: nn.Parameter
    _scales: nn.Parameter
    _rotations: nn.Parameter

    def __init__(self, raw: Mapping[str, Tensor]) -> None:
        """Make the model of the class's tensors, by group name (the keys of ATTRIBUTES).

        Raises ValueError for wrong shapes.
        """
        if set(raw) != set(ATTRIBUTES):
            raise ValueError(f"raw holds {sorted(raw)}, but it must hold {sorted(ATTRIBUTES)}.")
        n, rest = raw["xyz"].shape[0], raw["f_rest"].shape[1]
        shapes = {"xyz": (3,), "f_dc": (1, 3), "f_rest": (rest, 3)}
        shapes |= {"opacity": (1,), "scaling": (3,), "rotation": (4,)}
        for name, shape in shapes.items():
            if raw[name].shape != (n, *shape):
                raise ValueError(f"{name} has shape {list(raw[name].shape)}, but it must be {[n, *shape]}.")
        self.sh_degree = degree_of(rest + 1)
        self.set_raw(raw)

    def __len__(self) -> int:
        return self._means.shape[0]

    @property
    def device(self) -> torch.device:
        return self._means.device

    @property
    def means(self) -> Tensor:
        """Means [N, 3], world units."""
        return self._means

    @property
    def shs(self) -> Tensor:
        """Harmonic coefficients [N, K, 3]."""
        if self.sh_degree == 0:
            return self._features_dc
        return torch.cat([self._features_dc, self._features_rest], dim=1)

    @property
    def opacities(self) -> Tensor:
        """Opacities [N, 1], in (0, 1)."""
        return torch.sigmoid(self._opacities)

    @property
    def scales(self) -> Tensor:
        """Standard deviations [N, 3] in world units."""
        return torch.exp(self._scales)

    @property
    def rotations(self) -> Tensor:
        """Unit quaternions [N, 4] (w, x, y, z)."""
        return nn.functional.normalize(self._rotations, dim=-1)

    def raw(self) -> dict[str, nn.Parameter]:
        """The parameters by group name."""
        return {name: getattr(self, attribute) for name, attribute in ATTRIBUTES.items()}

    def set_raw(self, raw: Mapping[str, Tensor]) -> None:
        """Replace the named parameters; each becomes a new leaf, unless it is a Parameter already."""
        for name, tensor in raw.items():
            parameter = tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor.detach().clone())
            setattr(self, ATTRIBUTES[name], parameter)

    def nonfinite(self, *, gradients: bool = False) -> dict[str, int]:
        """Count the Gaussians with a non-finite parameter (or gradient), by group; sound groups are absent."""
        counts = {}
        for name, parameter in self.raw().items():
            tensor = parameter.grad if gradients else parameter.detach()
            if tensor is None or tensor.numel() == 0 or bool(torch.isfinite(tensor).all()):
                continue
            counts[name] = int((~torch.isfinite(tensor)).flatten(1).any(dim=1).sum())
        return counts

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of the raw tensors; `GaussianModel(state)` is the model again."""
        return {name: parameter.detach().clone() for name, parameter in self.raw().items()}

    @staticmethod
    def from_points(
        points: Tensor, colors: Tensor, sh_degree: int, initial_opacity: float = 0.1
    ) -> GaussianModel:
        """Round Gaussians of one opacity at points [N, 3] with colours [N, 3] in [0, 1].

        Each scale is the root mean square distance to the three nearest neighbours, at least 3e-4.
        """
        if points.ndim != 2 or points.shape[1] != 3 or colors.shape != points.shape:
            raise ValueError(
                f"points and colors have shapes {list(points.shape)} and {list(colors.shape)}, "
                "but both must be [N, 3]."
            )
        n = points.shape[0]
        rest = num_coefficients(sh_degree) - 1
        scales = 0.5 * torch.log(distCUDA2(points).clamp_min(1e-7))
        identity = torch.tensor([1.0, 0.0, 0.0, 0.0], device=points.device, dtype=points.dtype)
        raw = {
            "xyz": points,
            "f_dc": rgb_to_dc(colors)[:, None, :],
            "f_rest": points.new_zeros(n, rest, 3),
            "opacity": torch.logit(points.new_full((n, 1), initial_opacity)),
            "scaling": scales[:, None].repeat(1, 3),
            "rotation": identity.repeat(n, 1),
        }
        return GaussianModel(raw)

    def save_ply(self, path: str | os.PathLike[str]) -> None:
        """Write the Gaussians for any viewer of Inria's layout; see scene.ply.write_gaussians."""
        write_gaussians(path, self.raw())

    @staticmethod
    def load_ply(path: str | os.PathLike[str], device: torch.device | str | None = None) -> GaussianModel:
        """Read what save_ply wrote; see scene.ply.read_gaussians for the errors."""
        return GaussianModel({name: tensor.to(device) for name, tensor in read_gaussians(path).items()})
