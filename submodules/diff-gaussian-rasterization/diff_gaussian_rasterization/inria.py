"""The two classes of the single-view interface that 3D Gaussian Splatting introduced, as a thin case of rasterize."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .batched import choose_backend, column
from .reference import finite
from .scene import COUNTS, Gaussians, Views

NEAR = 0.2  # world units
NAMED = 20  # at most so many indices in a warning


@dataclass(frozen=True)
class GaussianRasterizationSettings:
    """One camera, in the layout of 3D Gaussian Splatting: matrices are transposed, row vectors stand left of them.

    tanfovx, tanfovy: tangents of half the fields of view. bg [3]. viewmatrix [4, 4] world to camera; projmatrix
    [4, 4] world to clip space (viewmatrix @ projection). campos [3] follows from viewmatrix and is not read, nor is
    prefiltered. debug names Gaussians with non-finite parameters. antialiasing: Mip-Splatting's 2D filter.
    """

    image_height: int
    image_width: int
    tanfovx: float
    tanfovy: float
    bg: Tensor
    scale_modifier: float
    viewmatrix: Tensor
    projmatrix: Tensor
    sh_degree: int
    campos: Tensor
    prefiltered: bool
    debug: bool = False
    antialiasing: bool = False

    def views(self) -> Views:
        """The same camera as Views with V = 1."""
        width, height = self.image_width, self.image_height
        projection = torch.linalg.solve(self.viewmatrix, self.projmatrix)
        # In clip space w = z, so ndc = x / (z tan) + projection[2, 0], and a pixel is ((ndc + 1) size - 1) / 2.
        size = torch.tensor([width, height]).to(projection)
        tangents = torch.tensor([self.tanfovx, self.tanfovy]).to(projection)
        return Views(
            viewmats=self.viewmatrix.T[None],
            focals=(size / (2 * tangents))[None],
            principals=(((projection[2, :2] + 1) * size - 1) / 2)[None],
            backgrounds=self.bg[None],
            width=width,
            height=height,
            sh_degree=self.sh_degree,
            scale_modifier=self.scale_modifier,
            near=NEAR,
            antialiasing=self.antialiasing,
        )


class GaussianRasterizer(nn.Module):
    """Renders one view of Gaussians."""

    def __init__(self, raster_settings: GaussianRasterizationSettings) -> None:
        super().__init__()
        self.raster_settings = raster_settings

    def markVisible(self, positions: Tensor) -> Tensor:
        """[N] bool: which positions [N, 3] lie beyond the near plane."""
        with torch.no_grad():
            viewmatrix = self.raster_settings.viewmatrix
            return positions @ viewmatrix[:3, 2] + viewmatrix[3, 2] > NEAR

    def forward(
        self,
        means3D: Tensor,
        means2D: Tensor,
        opacities: Tensor,
        shs: Tensor | None = None,
        colors_precomp: Tensor | None = None,
        scales: Tensor | None = None,
        rotations: Tensor | None = None,
        cov3D_precomp: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """color [3, H, W], radii [N] int32, depth_alpha [2, H, W]: sum of T alpha z, and the final transmittance T.

        means2D [N, 3] is not read; its gradient is that of the mean in NDC: of the pixel mean times (W/2, H/2, 0).
        Raises ValueError unless exactly one of shs and colors_precomp is given, and exactly one of cov3D_precomp and
        scales with rotations.
        """
        settings = self.raster_settings
        gaussians = Gaussians(
            means3D, column(opacities), scales, rotations, cov3D_precomp, shs, colors_precomp
        )
        views = settings.views()
        backend = choose_backend(gaussians, views, None)
        half = torch.tensor([settings.image_width / 2, settings.image_height / 2]).to(means2D)
        anchor = (means2D[:, :2] * half)[None]
        rgb, depth, alpha, radii, counts = backend(gaussians, views, anchor, torch.empty_like(anchor))
        if settings.debug and counts[0, COUNTS.index("nonfinite")]:
            _name(gaussians, settings.sh_degree)
        return rgb[0], radii[0], torch.cat([depth[0], 1 - alpha[0]])


def _name(gaussians: Gaussians, sh_degree: int) -> None:
    """Warns which Gaussians have non-finite parameters."""
    found = (~finite(gaussians, sh_degree)).nonzero().squeeze(1).tolist()
    indices = ", ".join(map(str, found[:NAMED])) + (", ..." if len(found) > NAMED else "")
    warnings.warn(
        f"{len(found)} Gaussians have non-finite parameters and are not drawn: {indices}", stacklevel=3
    )
