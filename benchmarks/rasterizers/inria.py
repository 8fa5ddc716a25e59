"""Run Inria's rasterizer, whose package has the same name as ours.

It is told apart by its compiled part, `_C`, which ours does not have, and imported under another name: from
the folders that are given, or else from every folder on Python's path that holds one. Its branches and forks
differ in what they take and return; what is used of them here is what all have: precomputed colors, scales
and rotations.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .peer import Images, Render
from .scene import Scene

PACKAGE = "diff_gaussian_rasterization"
NEAR, FAR = 0.01, 100.0  # of the projection; no depth is read from it


def packages(folders: list[str]) -> list[Path]:
    """The package that each folder is or holds; without folders, those on Python's path."""
    found = [_package(folder) for folder in folders or sys.path]
    return found if folders else [package for package in found if _compiled(package)] or [Path(PACKAGE)]


def _package(folder: str) -> Path:
    inside = Path(folder).resolve() / PACKAGE
    return inside if inside.exists() else inside.parent


def _compiled(package: Path) -> bool:
    return any(package.glob("_C.*"))


def load(package: Path) -> ModuleType:
    """The package, imported under a name of its own."""
    if not _compiled(package):
        raise FileNotFoundError(f"{package} has no compiled _C, --inria must name a folder with one.")
    return load_as("inria_" + PACKAGE, package)


def load_as(name: str, package: Path) -> ModuleType:
    """A package imported under another name than its own."""
    spec = importlib.util.spec_from_file_location(
        name, package / "__init__.py", submodule_search_locations=[str(package)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def version(package: Path) -> str:
    """Version of the distribution beside the package, "" without one."""
    for distribution in metadata.distributions(path=[str(package.parent)]):
        if distribution.metadata["Name"].replace("-", "_") == PACKAGE:
            return distribution.version
    return ""


def prepare(scene: Scene, package: Path) -> Render:
    """The forward, one call per view, for it takes no more; colors, and depth and alpha if it returns both."""
    return view_by_view(scene, load(package))


def view_by_view(scene: Scene, module: ModuleType) -> Render:
    """The forward by the single-view classes of a module."""
    g = scene.gaussians
    rasterizers = [module.GaussianRasterizer(each) for each in settings(scene, module)]
    unread = torch.zeros_like(g["means"], requires_grad=True)

    def render() -> Images:
        views = []
        for rasterizer in rasterizers:
            returned = rasterizer(
                means3D=g["means"],
                means2D=unread,
                opacities=g["opacities"][:, None],
                colors_precomp=g["colors"],
                scales=g["scales"],
                rotations=g["rotations"],
            )
            views.append(images(returned))
        return tuple(torch.stack(column) for column in zip(*views))

    return render


def images(returned: tuple[Tensor, ...]) -> Images:
    """Turn (color, radii), (color, radii, inverse depth) or (color, radii, depth_alpha) into color, or color,
    depth, alpha.
    """
    color, others = returned[0], returned[2:]
    if len(others) == 1 and others[0].shape[0] == 2:
        depth, transmittance = others[0].split(1)
        return color, depth, 1 - transmittance
    return (color,)


def settings(scene: Scene, module: ModuleType) -> Iterator[Any]:
    """Settings of each view; matrices are transposed there."""
    cameras = scene.cameras
    width, height = cameras["width"], cameras["height"]
    fields = module.GaussianRasterizationSettings._fields
    for viewmat, (fx, fy), background in zip(
        cameras["viewmats"], cameras["focals"].tolist(), cameras["background"]
    ):
        tangents = width / (2 * fx), height / (2 * fy)
        projection = torch.zeros(4, 4)
        projection[0, 0], projection[1, 1] = 1 / tangents[0], 1 / tangents[1]
        projection[2, 2:] = torch.tensor([FAR, -FAR * NEAR]) / (FAR - NEAR)
        projection[3, 2] = 1
        values = {
            "image_height": height,
            "image_width": width,
            "tanfovx": tangents[0],
            "tanfovy": tangents[1],
            "bg": background,
            "scale_modifier": 1.0,
            "viewmatrix": viewmat.T.contiguous(),
            "projmatrix": (projection.to(viewmat) @ viewmat).T.contiguous(),
            "sh_degree": 0,
            "campos": -viewmat[:3, :3].T @ viewmat[:3, 3],
            "prefiltered": False,
            "debug": False,
            "antialiasing": False,
        }
        yield module.GaussianRasterizationSettings(**{n: values[n] for n in fields if n in values})
