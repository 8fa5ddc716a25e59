"""Skeletons of glTF 2.0 files: the joints of their skins."""

from __future__ import annotations

import logging
from functools import lru_cache

import numpy as np

from scene.meshes.files_beside import Picture
from scene.meshes.gltf import Skinned, read_skinned
from scene.meshes.gltf_file import GltfFile
from scene.meshes.gltf_nodes import world_matrices
from scene.skeleton.skeleton import Array, Skeleton, Skin, strongest

GREY = 0.5
"""Colour of vertices without one, where others have colours."""


def read_gltf_skeleton(path: str) -> Skeleton:
    """Read the joints of all skins that are shown, and the skin, as the file's nodes hold them.

    Raises ValueError for a file without a skin, or whatever else comes of one that is not sound.
    """
    file, parts, rigid = read_skinned(path)
    if not parts:
        raise ValueError("it has no mesh with a skin, but a skeleton is taken from one")
    used = [skin for node in file.entries("nodes") if (skin := node.get("skin")) is not None]
    nodes = list(dict.fromkeys(joint for skin in used for joint in file.entry("skins", skin)["joints"]))
    numbers = {node: index for index, node in enumerate(nodes)}
    parents = {
        child: node for node, entry in enumerate(file.entries("nodes")) for child in entry.get("children", [])
    }

    def parent_of(node: int) -> int:
        while (node := parents.get(node, -1)) >= 0:
            if node in numbers:
                return numbers[node]
        return -1

    worlds = np.stack([world_matrices(file)[node] for node in nodes])
    if rigid:
        logging.warning("%r: %d meshes without a skin are no part of what the skeleton bends.", path, rigid)
    return Skeleton(
        _names(file, nodes),
        tuple(parent_of(node) for node in nodes),
        worlds[:, :3, 3],
        np.stack([_rotation(world[:3, :3]) for world in worlds]),
        skin=_skin(path, parts, numbers),
    )


def _names(file: GltfFile, nodes: list[int]) -> tuple[str, ...]:
    """Names of joints, each of its own."""
    found: dict[str, None] = {}
    for node in nodes:
        name = str(file.entry("nodes", node).get("name") or f"joint {node}")
        found[name if name not in found else f"{name} ({node})"] = None
    return tuple(found)


def _rotation(matrix: Array) -> Array:
    """The rotation [3, 3] that is nearest to a matrix."""
    left, _, right = np.linalg.svd(matrix)
    return left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right


def _skin(path: str, parts: list[Skinned], numbers: dict[int, int]) -> Skin:
    """The surface of all parts together."""
    decode = lru_cache(maxsize=4)(Picture.decode)
    vertices, faces, shares, colors, first = [], [], [], [], 0
    for part in parts:
        count = len(part.shape.vertices)
        dense = np.zeros((count, len(numbers)))
        own = (
            np.vectorize(numbers.__getitem__, otypes=[np.int64])(part.nodes)
            if part.nodes.size
            else part.nodes
        )
        np.add.at(dense, (np.arange(count)[:, None], own), part.weights)
        found = part.shape.paint.colors(lambda values: values, None, count, decode)
        vertices.append(part.shape.vertices)
        faces.append(part.shape.faces + first)
        shares.append(dense)
        colors.append(np.full((count, 3), np.nan) if found is None else found)
        first += count
    together = np.concatenate(shares)
    joints, weights = strongest(together)
    lost = 1 - np.take_along_axis(together, joints, axis=1)[weights > 0].sum() / max(together.sum(), 1e-12)
    if lost > 1e-3:
        logging.warning(
            "%r: a vertex keeps its four strongest joints; %.1f%% of all weights go to these from others.",
            path,
            100 * lost,
        )
    painted = np.concatenate(colors)
    return Skin(
        np.concatenate(vertices),
        np.concatenate(faces),
        joints,
        weights,
        None if np.isnan(painted).all() else np.nan_to_num(painted, nan=GREY),
    )
