"""Differentiable rasterization of 3D Gaussians: one call for all views, and Inria's two classes on top of it."""

from __future__ import annotations

from .batched import RasterOutput, rasterize
from .inria import GaussianRasterizationSettings, GaussianRasterizer
from .scene import COUNTS

__all__ = ["COUNTS", "GaussianRasterizationSettings", "GaussianRasterizer", "RasterOutput", "rasterize"]
