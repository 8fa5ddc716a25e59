"""`.usdc` and `.usdz`: a textured mesh in USD, by default one that shines by itself, since its texture holds the light
that the asset was made with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from exporting import usd
from exporting.mesh.gltf import METALNESS, ROUGHNESS, png
from exporting.mesh.textured import TexturedMesh
from utils.files import write_bytes


def write(path: Path, mesh: TexturedMesh, name: str, axes: str, unit: float, lit: bool) -> None:
    """Write the file of a mesh that is in these axes and this unit."""
    picture = f"{name}.png"

    def fill(stage: Any, root: str, folder: Path) -> None:
        write_bytes(folder / picture, png(mesh.texture))
        _mesh(stage, f"{root}/mesh", mesh, _material(stage, f"{root}/material", picture, lit))

    usd.write(path, axes, unit, name, fill)


def _mesh(stage: Any, path: str, mesh: TexturedMesh, material: Any) -> None:
    from pxr import Sdf, UsdGeom, UsdShade, Vt

    shape = UsdGeom.Mesh.Define(stage, path)
    shape.CreatePointsAttr(usd.vectors("Vec3fArray", mesh.vertices))
    shape.CreateFaceVertexCountsAttr(Vt.IntArray([3] * len(mesh.faces)))
    shape.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(mesh.faces.astype(np.int32).ravel()))
    shape.CreateNormalsAttr(usd.vectors("Vec3fArray", mesh.normals))
    shape.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    shape.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    bounds = np.stack([mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)])
    shape.CreateExtentAttr(usd.vectors("Vec3fArray", bounds))
    # Here a texture begins at the bottom.
    places = np.stack([mesh.places[:, 0], 1 - mesh.places[:, 1]], axis=1)
    kind = Sdf.ValueTypeNames.TexCoord2fArray
    UsdGeom.PrimvarsAPI(shape).CreatePrimvar("st", kind, UsdGeom.Tokens.vertex).Set(
        usd.vectors("Vec2fArray", places)
    )
    UsdShade.MaterialBindingAPI.Apply(shape.GetPrim()).Bind(material)


def _material(stage: Any, path: str, picture: str, lit: bool) -> Any:
    """A material of UsdPreviewSurface, which reads the picture as a matt colour or as light."""
    from pxr import Gf, Sdf, UsdShade

    types = Sdf.ValueTypeNames
    material = UsdShade.Material.Define(stage, path)

    def shader(name: str, kind: str) -> Any:
        found = UsdShade.Shader.Define(stage, f"{path}/{name}")
        found.CreateIdAttr(kind)
        return found

    places = shader("places", "UsdPrimvarReader_float2")
    places.CreateInput("varname", types.String).Set("st")
    texture = shader("texture", "UsdUVTexture")
    texture.CreateInput("file", types.Asset).Set(Sdf.AssetPath(f"./{picture}"))
    texture.CreateInput("sourceColorSpace", types.Token).Set("sRGB")
    texture.CreateInput("wrapS", types.Token).Set("clamp")
    texture.CreateInput("wrapT", types.Token).Set("clamp")
    texture.CreateInput("st", types.Float2).ConnectToSource(places.CreateOutput("result", types.Float2))
    color = texture.CreateOutput("rgb", types.Float3)
    surface = shader("surface", "UsdPreviewSurface")
    surface.CreateInput("roughness", types.Float).Set(ROUGHNESS)
    surface.CreateInput("metallic", types.Float).Set(METALNESS)
    if lit:
        surface.CreateInput("diffuseColor", types.Color3f).ConnectToSource(color)
    else:
        surface.CreateInput("diffuseColor", types.Color3f).Set(Gf.Vec3f(0.0))
        surface.CreateInput("useSpecularWorkflow", types.Int).Set(1)
        surface.CreateInput("specularColor", types.Color3f).Set(Gf.Vec3f(0.0))
        # Blender knows no colour of shine; without refraction there is none.
        surface.CreateInput("ior", types.Float).Set(1.0)
        surface.CreateInput("emissiveColor", types.Color3f).ConnectToSource(color)
    material.CreateSurfaceOutput().ConnectToSource(surface.CreateOutput("surface", types.Token))
    return material
