"""Mesh with a texture: what files are written from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exporting.mesh.rig import Rig, bind
from exporting.pose import Pose
from scene.axes import turn
from scene.skeleton.skeleton import Skeleton


@dataclass(frozen=True)
class TexturedMesh:
    """Mesh with a texture.

    vertices [V, 3] in world units, their unit normals [V, 3], places in the texture [V, 2] in [0, 1] from its
    top left; faces [F, 3], counter-clockwise from outside; texture [S, S, 3] uint8, sRGB.

    Vertices are doubled along seams of the texture: shared [V] numbers, from 0, the vertex of the closed surface that
    each is. open_edges holds where the surface is not closed without the seams, as middles of edges [E, 3].
    rig: the skeleton that bends it, and by which weights; None for most meshes.
    """

    vertices: NDArray[np.float32]
    normals: NDArray[np.float32]
    places: NDArray[np.float32]
    faces: NDArray[np.int64]
    texture: NDArray[np.uint8]
    open_edges: NDArray[np.float32]
    shared: NDArray[np.int64]
    rig: Rig | None = None

    def placed(self, axes: str, pose: Pose) -> TexturedMesh:
        """The mesh as a program with `axes` sees it (see `scene.axes`), scaled and lifted."""
        matrix = turn(axes)

        def moved(points: NDArray[np.float32]) -> NDArray[np.float32]:
            return pose.points(torch.from_numpy(points).double() @ matrix.T, axes).float().numpy()

        return replace(
            self,
            vertices=moved(self.vertices),
            normals=(self.normals.astype(np.float64) @ matrix.numpy().T).astype(np.float32),
            # A mirrored face goes round the other way.
            faces=self.faces[:, ::-1] if float(torch.linalg.det(matrix)) < 0 else self.faces,
            open_edges=moved(self.open_edges),
            rig=None
            if self.rig is None
            else self.rig.moved(matrix.numpy(), pose.scale, pose.rise(axes).numpy()),
        )

    def bound(self, skeleton: Skeleton) -> TexturedMesh:
        """The mesh with a skin, in the coordinates of the skeleton. See `rig.bind`."""
        vertices, faces = self.merged
        normals = np.empty_like(vertices)
        normals[self.shared] = self.normals
        return replace(self, rig=bind(vertices, normals, faces, skeleton).at(self.shared))

    @property
    def bounds(self) -> Tensor:
        """Least and greatest corner [2, 3], float64."""
        return torch.stack(torch.from_numpy(self.vertices).double().aminmax(dim=0))

    @property
    def merged(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Vertices [W, 3] and faces [F, 3] of the closed surface, without seams."""
        vertices = np.empty((int(self.shared.max()) + 1, 3), np.float32)
        vertices[self.shared] = self.vertices
        return vertices, self.shared[self.faces]
