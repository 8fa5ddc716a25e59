"""Meshes in glTF 2.0 files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scene.meshes.colors import Array
from scene.meshes.files_beside import plural, report_unused
from scene.meshes.gltf_accessors import numbers, whole_numbers
from scene.meshes.gltf_file import READ, GltfFile
from scene.meshes.gltf_materials import Materials
from scene.meshes.gltf_nodes import instances, shown_nodes, world_matrices
from scene.meshes.shapes import NO_FACES, Placed, Shape

POINTS, TRIANGLES, STRIP, FAN = 0, 4, 5, 6
"""Modes of a primitive (section 5.24.4); those between are lines."""


def read_gltf(path: str) -> list[Placed]:
    """Read the meshes of the scene that a .glb or .gltf file opens with, in its rest pose.

    A shape's colours are what a person sees in full white light. Lines and points are vertices without faces.
    A warning reports what is not used. Raises ValueError, mostly in one sentence, or whatever else comes of a
    file that is not sound.
    """
    file = GltfFile(path)
    unused: list[str] = []
    reader = _Reader(file, unused)
    placed: list[Placed] = []
    shown = shown_nodes(file)
    for index in shown:
        node = file.entry("nodes", index)
        if "mesh" in node:
            placed += reader.placed(node, reader.worlds[index])
    report_unused(path, unused + _left_out(file, shown))
    return placed


@dataclass(frozen=True)
class Skinned:
    """A shape in the scene's coordinates, the nodes [V, K] that move its vertices, and by which weights [V, K]."""

    shape: Shape
    nodes: Array
    weights: Array


def read_skinned(path: str) -> tuple[GltfFile, list[Skinned], int]:
    """Read the meshes that bones hold, of the scene that a file opens with, as they stand there; also return the file, and
    how many meshes no bone holds. Raises as `read_gltf`."""
    file = GltfFile(path)
    unused: list[str] = []
    reader, shown = _Reader(file, unused), shown_nodes(file)
    found: list[Skinned] = []
    rigid = 0
    for index in shown:
        node = file.entry("nodes", index)
        if "mesh" in node and "skin" in node:
            found += reader.skinned(node)
        rigid += "mesh" in node and "skin" not in node
    report_unused(path, unused + _left_out(file, shown))
    return file, found, rigid


def _left_out(file: GltfFile, shown: list[int]) -> list[str]:
    """List what a file holds beside meshes and materials, with counts."""
    nodes = [file.entry("nodes", index) for index in shown]
    lights = sum("KHR_lights_punctual" in node.get("extensions", {}) for node in nodes)
    found = {
        "camera": sum("camera" in node for node in nodes),
        "light": lights,
        "animation": len(file.entries("animations")),
        "other scene": max(0, len(file.entries("scenes")) - 1),
    }
    extensions = [str(name) for name in file.document.get("extensionsUsed", []) if name not in READ]
    if lights:
        extensions = [name for name in extensions if name != "KHR_lights_punctual"]
    return [plural(count, what) for what, count in found.items() if count] + [
        f"the effect of {name}" for name in sorted(set(extensions))
    ]


class _Reader:
    """Shapes of a file's meshes, each made once."""

    def __init__(self, file: GltfFile, unused: list[str]) -> None:
        self._file, self._unused = file, unused
        self._materials = Materials(file, unused)
        self._shapes: dict[tuple[int, str], list[tuple[Shape, dict[str, Any]]]] = {}
        self.worlds = world_matrices(file)

    def placed(self, node: dict[str, Any], world: Array) -> list[Placed]:
        """The shapes of a node's mesh, and where they are."""
        shapes = self._shapes_of(node)
        if "skin" not in node:
            return [(shape, world @ copy) for copy in instances(self._file, node) for shape, _ in shapes]
        # The node's own place does not count for what bones move (section 3.7.3.3).
        bones = self._bones(self._file.entry("skins", node["skin"]))
        return [(self._posed(shape, attributes, bones), np.eye(4)) for shape, attributes in shapes]

    def _shapes_of(self, node: dict[str, Any]) -> list[tuple[Shape, dict[str, Any]]]:
        """The shapes of a node's mesh in its own coordinates, and the attributes of each."""
        mesh = self._file.entry("meshes", node["mesh"])
        weights = node.get("weights", mesh.get("weights", []))
        key = (node["mesh"], str(weights))
        if key not in self._shapes:
            self._shapes[key] = [
                (shape, primitive["attributes"])
                for primitive in mesh["primitives"]
                for shape in [self._shape(primitive, weights)]
                if shape is not None
            ]
        return self._shapes[key]

    def _shape(self, primitive: dict[str, Any], weights: list[float]) -> Shape | None:
        attributes = primitive["attributes"]
        if "POSITION" not in attributes:
            self._unused.append("a primitive without positions")
            return None
        accessor = self._file.entry("accessors", attributes["POSITION"])
        if "bufferView" not in accessor and "sparse" not in accessor:
            raise ValueError(f"its accessors[{attributes['POSITION']}] holds positions, but has no data")
        vertices = _positions(self._file, attributes["POSITION"])
        for weight, target in zip(weights, primitive.get("targets", [])):
            if weight and "POSITION" in target:
                vertices = vertices + weight * _positions(self._file, target["POSITION"])
        faces = self._faces(primitive, len(vertices))
        paint = self._materials.paint(primitive)
        for values in (paint.vertices, *(t.uv for t in (paint.texture, paint.glow_texture) if t is not None)):
            if values is not None and len(values) != len(vertices):
                raise ValueError(f"a mesh has {len(vertices)} positions, but {len(values)} colours or places")
        return Shape(vertices, faces, paint)

    def _faces(self, primitive: dict[str, Any], count: int) -> Array:
        """The triangles [F, 3] of a primitive of `count` vertices, none for points and lines."""
        mode = primitive.get("mode", TRIANGLES)
        if mode not in (TRIANGLES, STRIP, FAN):
            return NO_FACES
        order = (
            np.arange(count)
            if "indices" not in primitive
            else whole_numbers(self._file, primitive["indices"])
        )
        order = order.reshape(-1)
        if mode == TRIANGLES:
            if len(order) % 3:
                self._unused.append(f"{len(order) % 3} corners that make no triangle")
            return order[: len(order) // 3 * 3].reshape(-1, 3)
        last = max(len(order) - 2, 0)
        first = order[:last] if mode == STRIP else np.repeat(order[:1], last)
        return np.stack([first, order[1:][:last], order[2:][:last]], axis=1)

    def _bones(self, skin: dict[str, Any]) -> Array:
        """The matrices [J, 4, 4] by which the joints of a skin move its vertices, at rest."""
        joints = skin["joints"]
        for joint in joints:
            self._file.entry("nodes", joint)
        matrices = np.stack([self.worlds[joint] for joint in joints])
        if "inverseBindMatrices" in skin:
            inverse = numbers(self._file, skin["inverseBindMatrices"])[: len(joints)].reshape(-1, 4, 4)
            matrices = matrices @ inverse.transpose(0, 2, 1)
        return matrices

    def skinned(self, node: dict[str, Any]) -> list[Skinned]:
        """The shapes of a node's mesh as its bones hold them, and the nodes that do."""
        joints = self._file.entry("skins", node["skin"])["joints"]
        bones, nodes = self._bones(self._file.entry("skins", node["skin"])), np.array(joints, dtype=np.int64)
        found = []
        for shape, attributes in self._shapes_of(node):
            numbers_of, weights = self._influences(attributes, len(shape.vertices), len(nodes))
            found.append(Skinned(self._posed(shape, attributes, bones), nodes[numbers_of], weights))
        return found

    def _influences(self, attributes: dict[str, Any], vertices: int, joints: int) -> tuple[Array, Array]:
        """The joints [V, K] of a skin that move each vertex, and by which weights [V, K]; K is 0, 4 or 8."""
        found: tuple[list[Array], list[Array]] = ([], [])
        for index in range(2):
            if f"JOINTS_{index}" not in attributes or f"WEIGHTS_{index}" not in attributes:
                continue
            numbers_of = whole_numbers(self._file, attributes[f"JOINTS_{index}"])
            weights = numbers(self._file, attributes[f"WEIGHTS_{index}"])
            if len(numbers_of) and not 0 <= numbers_of.min() <= numbers_of.max() < joints:
                raise ValueError(f"a vertex has joint {numbers_of.max()}, but there are {joints}")
            if not len(numbers_of) == len(weights) == vertices:
                raise ValueError(f"a mesh has {vertices} positions, but {len(weights)} weights of joints")
            found[0].append(numbers_of)
            found[1].append(weights)
        if not found[0]:
            return np.empty((vertices, 0), dtype=np.int64), np.empty((vertices, 0))
        return np.hstack(found[0]), np.hstack(found[1])

    def _posed(self, shape: Shape, attributes: dict[str, Any], bones: Array) -> Shape:
        """A shape whose vertices the bones have moved to the scene's coordinates."""
        moved, total = np.zeros_like(shape.vertices), np.zeros(len(shape.vertices))
        for joint, weight in zip(*(each.T for each in self._influences(attributes, len(total), len(bones)))):
            placed = np.einsum("vij,vj->vi", bones[joint, :3, :3], shape.vertices) + bones[joint, :3, 3]
            moved += weight[:, None] * placed
            total += weight
        held = total[:, None] > 0
        vertices = np.where(held, moved / np.where(held, total[:, None], 1.0), shape.vertices)
        return Shape(vertices, shape.faces, shape.paint)


def _positions(file: GltfFile, index: Any) -> Array:
    values = numbers(file, index)
    if values.shape[1] != 3:
        raise ValueError(
            f"its accessors[{index}] holds positions of {values.shape[1]} numbers, but 3 are needed"
        )
    return values
