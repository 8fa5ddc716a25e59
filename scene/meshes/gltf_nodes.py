"""The nodes of glTF 2.0: which are shown, and where."""

from __future__ import annotations

from typing import Any

import numpy as np

from scene.meshes.colors import Array
from scene.meshes.gltf_accessors import numbers
from scene.meshes.gltf_file import GltfFile

INSTANCING = "EXT_mesh_gpu_instancing"


def world_matrices(file: GltfFile) -> list[Array]:
    """Return the matrix [4, 4] of each node in the scene's coordinates.

    Raises ValueError for nodes that are their own ancestors or have two parents.
    """
    nodes = [file.entry("nodes", index) for index in range(len(file.entries("nodes")))]
    parents: dict[int, int] = {}
    for parent, node in enumerate(nodes):
        for child in node.get("children", []):
            file.entry("nodes", child)
            if child in parents:
                raise ValueError(f"its nodes[{child}] is a child of two nodes")
            parents[child] = parent
    worlds: dict[int, Array] = {}
    pending = [index for index in range(len(nodes)) if index not in parents]
    while pending:
        index = pending.pop()
        local = _local(nodes[index])
        worlds[index] = worlds[parents[index]] @ local if index in parents else local
        pending += nodes[index].get("children", [])
    if len(worlds) < len(nodes):
        lost = next(index for index in range(len(nodes)) if index not in worlds)
        raise ValueError(f"its nodes[{lost}] is its own ancestor")
    return [worlds[index] for index in range(len(nodes))]


def shown_nodes(file: GltfFile) -> list[int]:
    """Return the nodes of the scene that the file opens with, or of all without a scene, in order."""
    scenes, nodes = file.entries("scenes"), file.entries("nodes")
    if not scenes:
        return list(range(len(nodes)))
    roots = file.entry("scenes", file.document.get("scene", 0)).get("nodes", [])
    shown: dict[int, None] = {}
    pending = list(reversed(roots))
    while pending:
        index = pending.pop()
        if index not in shown:
            shown[index] = None
            pending += reversed(file.entry("nodes", index).get("children", []))
    return list(shown)


def instances(file: GltfFile, node: dict[str, Any]) -> list[Array]:
    """Return the matrices [4, 4] of a node's copies of its mesh, in the node's own coordinates."""
    extension = node.get("extensions", {}).get(INSTANCING)
    if extension is None:
        return [np.eye(4)]
    attributes = extension["attributes"]
    columns = {
        name: numbers(file, attributes[key])
        for name, key in (("translation", "TRANSLATION"), ("rotation", "ROTATION"), ("scale", "SCALE"))
        if key in attributes
    }
    count = min((len(values) for values in columns.values()), default=0)
    return [_local({name: values[row] for name, values in columns.items()}) for row in range(count)]


def _local(node: dict[str, Any]) -> Array:
    """The matrix [4, 4] of a node from its parent's coordinates."""
    if "matrix" in node:
        return np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T
    x, y, z, w = np.asarray(node.get("rotation", (0, 0, 0, 1)), dtype=np.float64)
    rotation = np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * np.asarray(node.get("scale", (1, 1, 1)), dtype=np.float64)
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix
