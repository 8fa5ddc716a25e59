"""The YAML sections ``ModelParams`` (Gaussians and their augmentation) and ``PipelineParams`` (rendering)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from config.keys import Flag, OptionalAxes, OptionalText, Real, Section, Text, Whole, key, requirement

GAUSSIANS_SUFFIXES = (".ply", ".splat", ".spz", ".sog", ".glb", ".usdc", ".usda", ".usdz", "meta.json")
GAUSSIANS_FILE = "a .ply, .splat, .spz, .sog, .splat.glb or .splat.usdz file of Gaussians"


def _gaussians_file(value: Any) -> str | None:
    if value in (None, ""):
        return None
    if isinstance(value, str) and value.lower().endswith(GAUSSIANS_SUFFIXES):
        return value
    raise requirement(f"a path to {GAUSSIANS_FILE}")


class ModelParams(Section):
    """The representation, where its results go, and how renders are augmented while training."""

    sh_degree: Whole = key(0, "degree of the spherical harmonics of the colours", ge=0, le=3)
    workspace: Text = key("debug", "the run goes to outputs/<workspace>/<run>/", blank_is_default=True)
    white_background: Flag = key(
        False,
        "use white as the background that is not random (LucidDreamer), else black (SegmentDreamer, GCS-BEG)",
    )
    sh_deg_aug_ratio: Real = key(0.1, "probability of rendering with degree 0 only", ge=0, le=1)
    bg_aug_ratio: Real = key(
        0.5, "probability of a random background: one colour half the time, else black", ge=0, le=1
    )
    bg_gray: Flag = key(False, "make random backgrounds grey, not coloured")
    shs_aug_ratio: Real = key(0.0, "probability of noise on the colour coefficients", ge=0, le=1)
    scale_aug_ratio: Real = key(1.0, "probability of noise on the scales", ge=0, le=1)
    flip_aug_ratio: Real = key(0.5, "probability of mirroring the images that the guidance sees", ge=0, le=1)
    opt_path: OptionalText = key(None, "the configuration file's path, filled in if it is not given")
    pretrained_model_path: Annotated[OptionalText, BeforeValidator(_gaussians_file)] = key(
        None, f"{GAUSSIANS_FILE} to continue from, taken as they are, in place of init_shape"
    )
    input_axes: OptionalAxes = key(
        None,
        "up and front axes of pretrained_model_path, such as -y,-z; none: those of its own note, or those usual "
        "in its format (.ply: z,x)",
    )
    batch: Whole = key(10, "cameras prepared at once; here the batch is C_batch_size", unused=True, ge=1)
    data_device: OptionalText = key(None, "the data's device; --device sets all devices", unused=True)
    eval: Flag = key(False, "hold out test images; there are none in text-to-3D", unused=True)
    source_path: Text = key("", "folder of a photographed scene", unused=True)
    model_path: Text = key("", "output folder; workspace names it", unused=True)
    images: Text = key("images", "folder of a photographed scene's images", unused=True)
    resolution: Whole = key(-1, "downscaling of photographs; use image_w and image_h", unused=True)


class PipelineParams(Section):
    """Settings of the rasterizer's calls."""

    antialiasing: Flag = key(False, "compensate the opacity of Gaussians that are smaller than a pixel")
    convert_SHs_python: Flag = key(False, "colours outside the rasterizer: the same values", unused=True)
    compute_cov3D_python: Flag = key(
        False, "covariances outside the rasterizer: the same values", unused=True
    )
    debug: Flag = key(False, "the CUDA rasterizer's dumps", unused=True)
