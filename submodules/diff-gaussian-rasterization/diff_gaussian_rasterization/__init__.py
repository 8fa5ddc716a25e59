"""Differentiable rasterization of 3D Gaussians: one call for all views, and Inria's two classes on top of it."""

from __future__ import annotations

from .batched import RasterOutput, rasterize
from .inria import GaussianRasterizationSettings, GaussianRasterizer

__all__ = ["GaussianRasterizationSettings", "GaussianRasterizer", "RasterOutput", "rasterize"]
