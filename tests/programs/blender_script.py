"""Open one mesh in Blender as a module and draw it: python blender_script.py JOB.json, in a process of its own.

The job: file, box (a path for what it finds), pictures (one path per view), positions, field of view in degrees, size. It may
have view_transform, Standard otherwise, and lamp: whether one lamp shines in a dark world, not a white world.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import bpy
import mathutils

GREY = 0.21586
"""Light that is 128 of 255 in sRGB."""
IMPORTERS = {
    ".glb": bpy.ops.import_scene.gltf,
    ".obj": bpy.ops.wm.obj_import,
    ".usdc": bpy.ops.wm.usd_import,
    ".usdz": bpy.ops.wm.usd_import,
    ".ply": bpy.ops.wm.ply_import,
    ".stl": bpy.ops.wm.stl_import,
}


def paint(asset: bpy.types.Object) -> None:
    """Give a mesh without a material one that needs no light: the colours of its vertices, or grey."""
    material = bpy.data.materials.new("colours")
    material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    nodes.clear()
    light, end = nodes.new("ShaderNodeEmission"), nodes.new("ShaderNodeOutputMaterial")
    light.inputs["Color"].default_value = (GREY, GREY, GREY, 1)
    links.new(light.outputs["Emission"], end.inputs["Surface"])
    if asset.data.color_attributes:
        colors = nodes.new("ShaderNodeVertexColor")
        colors.layer_name = asset.data.color_attributes[0].name
        links.new(colors.outputs["Color"], light.inputs["Color"])
    asset.data.materials.clear()
    asset.data.materials.append(material)


def main(job: dict) -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    file = Path(job["file"])
    IMPORTERS[file.suffix](filepath=str(file))
    (asset,) = (one for one in bpy.context.scene.objects if one.type == "MESH")
    corners = [asset.matrix_world @ vertex.co for vertex in asset.data.vertices]
    box = [[bound(point[axis] for point in corners) for axis in range(3)] for bound in (min, max)]
    Path(job["box"]).write_text(json.dumps({"name": asset.name, "vertices": len(corners), "box": box}))
    if len(asset.data.polygons) == 0:
        return
    if not any(asset.data.materials):
        paint(asset)
    scene = bpy.context.scene
    scene.world = bpy.data.worlds.new("white")
    scene.world.use_nodes = True
    if job.get("lamp"):
        scene.world.node_tree.nodes["Background"].inputs["Strength"].default_value = 0
        lamp = bpy.data.objects.new("lamp", bpy.data.lights.new("lamp", "SUN"))
        lamp.data.energy = 3
        lamp.rotation_euler = (math.radians(60), 0, math.radians(-40))
        scene.collection.objects.link(lamp)
    else:
        scene.world.node_tree.nodes["Background"].inputs["Color"].default_value = (1, 1, 1, 1)
    scene.render.engine = "CYCLES"
    scene.cycles.samples = 32
    scene.cycles.pixel_filter_type = "BOX"
    scene.cycles.use_denoising = False
    scene.view_settings.view_transform = job.get("view_transform", "Standard")
    scene.render.resolution_x = scene.render.resolution_y = job["size"]
    scene.render.threads_mode, scene.render.threads = "FIXED", 1
    eye = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    eye.data.angle = math.radians(job["field_of_view"])
    scene.collection.objects.link(eye)
    scene.camera = eye
    for position, picture in zip(job["positions"], job["pictures"]):
        eye.location = position
        eye.rotation_euler = (-mathutils.Vector(position)).to_track_quat("-Z", "Y").to_euler()
        scene.render.filepath = picture
        bpy.ops.render.render(write_still=True)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
