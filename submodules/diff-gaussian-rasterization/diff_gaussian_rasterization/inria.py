"""Single-view interface of 3D Gaussian Splatting: its two classes, as a thin case of rasterize."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .batched import choose_backend, column
from .debug import guarded
from .pieces import pieces
from .scene import LARGEST, Gaussians, Views, check_integer, check_number, check_shape, check_tensors, given

NEAR = 0.2  # world units


class GaussianRasterizationSettings(NamedTuple):
    """Settings of one camera, in the layout of 3D Gaussian Splatting: matrices are transposed, row vectors
    stand left of them.

    tanfovx, tanfovy: tangents of half the fields of view. bg [3]. viewmatrix [4, 4] world to camera; projmatrix
    [4, 4] world to clip space (viewmatrix @ projection). campos [3] follows from viewmatrix and is not read, nor is
    prefiltered. debug: see debug.guarded. antialiasing: Mip-Splatting's 2D filter.
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
        """The camera as Views with V = 1. Raises ValueError or TypeError where it is none."""
        check_tensors(bg=self.bg, viewmatrix=self.viewmatrix, projmatrix=self.projmatrix)
        check_shape("bg", self.bg, (3,))
        check_shape("viewmatrix", self.viewmatrix, (4, 4))
        check_shape("projmatrix", self.projmatrix, (4, 4))
        check_integer("image_width", self.image_width, 1, LARGEST)
        check_integer("image_height", self.image_height, 1, LARGEST)
        check_number("tanfovx", self.tanfovx, positive=True)
        check_number("tanfovy", self.tanfovy, positive=True)
        width, height = self.image_width, self.image_height
        # The principal point stands in row 2 of the projection alone, viewmatrix^-1 @ projmatrix, as its share of z. That row of
        # the inverse of a rigid matrix is column 2 of its rotation. (Solving would wait for the device, and so would numbers
        # of the host that are copied there as tensors.)
        exact = torch.promote_types(
            self.viewmatrix.dtype, torch.promote_types(self.projmatrix.dtype, torch.float32)
        )
        forward = self.viewmatrix[:3, 2].to(exact)
        x, y = (forward @ self.projmatrix[:3, :2].to(exact) / (forward @ forward)).unbind()
        focals = (width / (2 * self.tanfovx), height / (2 * self.tanfovy))
        return Views(
            viewmats=self.viewmatrix.T[None],
            focals=torch.stack([torch.full_like(x, focal) for focal in focals])[None],
            # In clip space w = z, so ndc = x / (z tan) + that share, and a pixel is ((ndc + 1) size - 1) / 2.
            principals=torch.stack([((x + 1) * width - 1) / 2, ((y + 1) * height - 1) / 2])[None],
            backgrounds=self.bg[None],
            width=width,
            height=height,
            sh_degree=self.sh_degree,
            scale_modifier=self.scale_modifier,
            near=NEAR,
            antialiasing=self.antialiasing,
        )


class _PixelMeans(torch.autograd.Function):
    """Function from means2D [N, 3] in NDC to what gets the pixel means' gradient [1, N, 2]; its values are not read."""

    @staticmethod
    def forward(ctx: Any, means2d: Tensor, width: int, height: int) -> Tensor:
        ctx.factors = width / 2, height / 2
        return means2d[None, :, :2]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, None, None]:
        in_ndc = given.new_empty(given.shape[1], 3)
        for to, of in pieces(in_ndc, given[0]):
            for axis, factor in enumerate(ctx.factors):
                torch.mul(of[:, axis], factor, out=to[:, axis])
            to[:, 2] = 0
        return in_ndc, None, None


class _DepthAlpha(torch.autograd.Function):
    """Function from depth and alpha [1, 1, H, W] to depth and final transmittance [2, H, W]."""

    @staticmethod
    def forward(ctx: Any, depth: Tensor, alpha: Tensor) -> Tensor:
        depth_alpha = depth.new_empty(2, *depth.shape[2:])
        for to, of in pieces(depth_alpha[0].flatten(), depth.flatten()):
            to.copy_(of)
        for to, of in pieces(depth_alpha[1].flatten(), alpha.flatten()):
            torch.sub(1, of, out=to)
        return depth_alpha

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, Tensor]:
        of_alpha = given.new_empty(given.shape[1:])
        for to, of in pieces(of_alpha.flatten(), given[1].reshape(-1)):
            torch.neg(of, out=to)
        return given[:1, None], of_alpha[None, None]


class GaussianRasterizer(nn.Module):
    """Renderer of one view of Gaussians."""

    def __init__(self, raster_settings: GaussianRasterizationSettings) -> None:
        super().__init__()
        self.raster_settings = raster_settings

    def markVisible(self, positions: Tensor) -> Tensor:
        """Mask [N] of the positions [N, 3], of any number type and device, beyond the near plane; NaN does
        not lie there.

        Like the original it looks at the depth alone, not at the sides of the image.
        """
        check_shape("positions", positions, ("N", 3))
        viewmatrix = self.raster_settings.viewmatrix.detach().to(positions.device)
        exact = torch.promote_types(positions.dtype, viewmatrix.dtype)
        depths = positions.detach().to(exact) @ viewmatrix[:3, 2].to(exact) + viewmatrix[3, 2]
        return depths > NEAR

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
        """Render color [3, H, W], radii [N] int32, depth_alpha [2, H, W]: sum of T alpha z, and the final
        transmittance T.

        means2D [N, 3] is not read; its gradient is that of the mean in NDC: of the pixel mean times (W/2, H/2, 0).
        Raises ValueError unless exactly one of shs and colors_precomp is given, and exactly one of cov3D_precomp and
        scales with rotations; and as rasterize does.
        """
        settings = self.raster_settings
        optional = given(shs=shs, colors_precomp=colors_precomp, scales=scales, rotations=rotations)
        check_tensors(
            means3D=means3D,
            means2D=means2D,
            opacities=opacities,
            **optional,
            **given(cov3D_precomp=cov3D_precomp),
        )
        gaussians = Gaussians(
            means3D, column(opacities), scales, rotations, cov3D_precomp, shs, colors_precomp
        )
        views = settings.views()
        backend = choose_backend(gaussians, views, None)
        check_shape("means2D", means2D, (len(means3D), 3))
        if means2D.device != means3D.device:
            raise ValueError(f"means2D is on {means2D.device}, it must be on {means3D.device} like means3D.")
        anchor = _PixelMeans.apply(means2D, settings.image_width, settings.image_height)
        if settings.debug:
            backend = guarded(backend)
        rgb, depth, alpha, radii, _ = backend(gaussians, views, anchor, anchor.new_empty(anchor.shape))
        # Not rgb[0], whose gradient would be copied into zeros.
        return rgb.squeeze(0), radii[0], _DepthAlpha.apply(depth, alpha)
