"""Point-E: coloured point clouds from text or images."""

from point_e.cloud import PointCloud
from point_e.errors import PointEError
from point_e.pipeline import PointE, load

__all__ = ["PointCloud", "PointE", "PointEError", "load"]
