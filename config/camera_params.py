"""The YAML section ``GenerateCamParams``: the start of the scene and the cameras that look at it."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from config.keys import (
    Flag,
    OptionalAxes,
    OptionalText,
    Real,
    Section,
    Text,
    Whole,
    interval,
    key,
    requirement,
    sentence,
)

RANDOM_SHAPES = ("sphere", "box", "rectangle_x", "rectangle_z", "scene")
INIT_SHAPES = (*RANDOM_SHAPES, "pointe")
MESH_SUFFIXES = (".obj", ".glb", ".gltf", ".stl", ".npz")
START_SUFFIXES = (".ply", *MESH_SUFFIXES)
START_FILE = "a path to a .ply, .obj, .glb, .gltf, .stl or .npz file"


def _shape_or_file(value: Any) -> str:
    if value == "shapee":
        raise sentence(
            "GenerateCamParams.init_shape is 'shapee', but Shap-E is not part of this project: give the mesh that it wrote, "
            "as in --init_shape shapee.ply --init_axes z,-y, or --init_shape pointe."
        )
    if isinstance(value, str) and (value in INIT_SHAPES or value.lower().endswith(START_SUFFIXES)):
        return value
    raise PydanticCustomError("choice", "", {"choices": [*INIT_SHAPES, START_FILE]})


def _skeleton_file(value: Any) -> str | None:
    if value in (None, ""):
        return None
    if isinstance(value, str) and value.lower().endswith(".json"):
        return value
    raise requirement("a path to a .json file, as python -m scene.skeleton writes it")


Degrees = interval(0, 180)
Azimuths = interval(-360, 360)
Radii = interval(0.01, 1000)
FieldsOfView = interval(0.01, 3.14)


class GenerateCamParams(Section):
    """Radii are in world units, θ in degrees from +z, φ in degrees from the front (+x), fields of view in
    radians."""

    # The start
    init_shape: Annotated[Text, BeforeValidator(_shape_or_file)] = key(
        "sphere", f"what the Gaussians start from: {', '.join(INIT_SHAPES)}, or {START_FILE}"
    )
    init_prompt: Text = key("", "the prompt for Point-E; none: the same as text", blank_is_default=True)
    use_pointe_rgb: Flag = key(False, "keep Point-E's colours; false: start grey")
    pointe_model: OptionalText = key(
        None,
        "Point-E's weights: openai, the name of one of its base models, toybox or a folder; none: toybox if "
        "the prior is toybox, else openai",
    )
    init_axes: OptionalAxes = key(
        None, "up and front axes of the start's file, such as y,z; none: those of its format (.ply: z,x)"
    )
    skeleton: Annotated[OptionalText, BeforeValidator(_skeleton_file)] = key(
        None,
        "the joints of the body that is the start, or else controlnet_guide: a .json file in its coordinates. ControlNets of the "
        "kind pose are shown it, and export.py makes a mesh that it bends",
    )
    init_num_pts: Whole = key(100_000, "largest number of points at the start", ge=4, le=100_000_000)

    init_fit_iter: Whole = key(
        0,
        "iterations, before the first, in which the Gaussians of a mesh become discs on it that are fitted to its renders, "
        "without the prior; 0: none",
        ge=0,
        le=100_000,
    )

    # Where the training cameras are, at first and after all relaxations
    radius_range: Annotated[tuple[float, float], Radii] = key(
        (5.2, 5.5), "distance from the centre, world units"
    )
    max_radius_range: Annotated[tuple[float, float], Radii] = key((3.5, 5.0), "the same after relaxation")
    theta_range: Annotated[tuple[float, float], Degrees] = key((45.0, 105.0), "polar angle, degrees from +z")
    max_theta_range: Annotated[tuple[float, float], Degrees] = key(
        (45.0, 105.0), "the same after relaxation", blank_is_default=True
    )
    phi_range: Annotated[tuple[float, float], Azimuths] = key(
        (-180.0, 180.0), "azimuth, degrees from the front"
    )
    max_phi_range: Annotated[tuple[float, float], Azimuths] = key(
        (-180.0, 180.0), "the same after relaxation", blank_is_default=True
    )
    fovy_range: Annotated[tuple[float, float], FieldsOfView] = key(
        (0.32, 0.60), "vertical field of view, radians"
    )
    max_fovy_range: Annotated[tuple[float, float], FieldsOfView] = key(
        (0.16, 0.60), "the same after relaxation"
    )
    rand_cam_gamma: Real = key(
        1.0,
        "exponent of both angles' distribution; above 1, more views are near the middle of the ranges",
        gt=0,
    )
    uniform_sphere_rate: Real = key(0.0, "probability of drawing uniformly on the sphere", ge=0, le=1)
    angle_overhead: Real = key(
        30.0, "polar angle below which a view counts as overhead, degrees", ge=0, le=180
    )
    angle_front: Real = key(
        60.0, "azimuth span of the front, degrees; views are interpolated", unused=True, ge=0, le=360
    )
    jitter_pose: Flag = key(True, "move camera centre, target and up vector at random")
    jitter_center: Real = key(0.05, "width of the camera centre's uniform jitter, world units", ge=0)
    jitter_target: Real = key(0.05, "standard deviation of the point looked at, world units", ge=0)
    jitter_up: Real = key(0.01, "standard deviation of the up vector", ge=0)

    # Test views and videos
    default_radius: Real = key(3.5, "distance of the test cameras, world units", gt=0)
    default_polar: Real = key(90.0, "polar angle of the test cameras, degrees from +z", ge=0, le=180)
    default_azimuth: Real = key(0.0, "azimuth that counts as the front, degrees", ge=-360, le=360)
    default_fovy: Real = key(0.55, "vertical field of view of the test cameras, radians", gt=0, lt=math.pi)
    render_45: Flag = key(True, "render test views from 45 degrees above too")

    # Images
    image_w: Whole = key(512, "width in pixels", ge=8, le=8192)
    image_h: Whole = key(512, "height in pixels", ge=8, le=8192)
    SSAA: Whole = key(1, "supersampling: renders have this many times the width and height", ge=1, le=16)
    device: OptionalText = key(None, "the cameras' device; --device sets all devices", unused=True)
