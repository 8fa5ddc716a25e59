"""Differentiable rasterization of 3D Gaussians: one batched call for all views, and Inria's two classes on top of it."""

from __future__ import annotations

from .inria import GaussianRasterizationSettings, GaussianRasterizer
from .batched import RasterOutput, rasterize

__all__ = ["GaussianRasterizationSettings", "GaussianRasterizer", "RasterOutput", "rasterize"]
