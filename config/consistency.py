"""Contradictions between keys, and keys that cannot act beside the others, by method."""

from __future__ import annotations

import os

from config import segments
from config.camera_params import INIT_SHAPES, RANDOM_SHAPES, START_SUFFIXES
from config.edit_mask import MASK_FILES, MEANING, region
from config.errors import ConfigError, show
from config.fast import exact
from config.guidance_params import PICTURES, TOY_PRIORS, GuidanceParams
from config.model_params import GAUSSIANS_SUFFIXES
from config.schema import SECTIONS, TRAIN_TIMESTEPS, Config

OF_KEPT: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "geometry": ("relocate_interval", "max_scale", "lambda_alpha", "lambda_alpha_binary", "geo_iter"),
    "color": ("min_color",),
}
"""Keys that change only what is kept, and that are off where nobody sets them."""

OF_CONTROLNETS = (
    *("controlnet_kinds", "controlnet_guide", "controlnet_scale", "controlnet_ratio"),
    "controlnet_t_range",
)
"""Keys that describe how the ControlNets of `controlnet_model_key` act."""

OF_IMAGE_PROMPT = ("image_prompt_scale", "image_prompt_behind", "image_prompt_model_key")
"""Keys that describe how `image_prompt` acts."""


def check(config: Config) -> None:
    """Check that the start is there and that the method can run with its keys.

    Raises ``ConfigError``, one sentence.
    """
    released = config.guidance.sctd_variant == "released"
    interval = config.guidance.check_interval
    try:
        if interval % 10:
            raise ValueError(
                f"GuidanceParams.check_interval is {interval}, but must be a multiple of 10, as of the iterations that are logged"
            )
        _check_prior(config)
        _check_start(config)
        if config.camera.skeleton is not None:
            _check_skeleton(config)
        if config.guidance.controlnet_model_key is not None:
            _check_controlnets(config)
        if config.guidance_type == "sctd":
            (_check_released_sctd if released else _check_sctd)(config)
        elif config.guidance_type == "gcs":
            _check_gcs(config)
    except ValueError as error:
        raise ConfigError(f"{error}.") from None


def _check_prior(config: Config) -> None:
    params = config.guidance
    if not (params.hf_key or params.model_key.strip()):
        raise ValueError("GuidanceParams.model_key is '', but must name a prior, such as toybox")
    if (params.refine_model_key is None) != (params.refine_from_iter is None):
        given, other = "refine_model_key", "refine_from_iter"
        if params.refine_model_key is None:
            given, other = other, given
        raise ValueError(
            f"GuidanceParams.{given} is {show(getattr(params, given))}, but {other} must be given too: which prior takes over, "
            "and at which iteration"
        )
    others = (params.hf_key, params.model_key, params.refine_model_key)
    if params.multiview_model_key is not None and params.multiview_model_key in others:
        raise ValueError(
            f"GuidanceParams.multiview_model_key is {show(params.multiview_model_key)}, but must be another prior than those that "
            "it takes turns with"
        )
    for key in ("LoRA_path", "textual_inversion_path", "image_prompt"):
        path = getattr(params, key)
        if path is not None and not os.path.exists(os.path.expanduser(path)):
            raise ValueError(
                f"GuidanceParams.{key} is {show(path)}, but there is no such file: --{key} FILE names it, --{key} '' goes without"
            )


def _check_start(config: Config) -> None:
    pretrained, fits = config.model.pretrained_model_path, config.camera.init_fit_iter
    if config.optimization.keeps_geometry and pretrained is None and fits == 0:
        raise ValueError(
            "OptimizationParams.keep is 'geometry', but only an asset has one that is worth keeping, or a mesh that is fitted: "
            "--pretrained_model_path asset.ply, or --init_shape mesh.glb --init_fit_iter 300"
        )
    if config.resume is not None or config.start_checkpoint is not None:
        return
    label, path = "GenerateCamParams.init_shape", config.camera.init_shape
    if fits > 0 and (pretrained is not None or path in INIT_SHAPES):
        start = f"init_shape {path}" if pretrained is None else "pretrained_model_path"
        raise ValueError(
            f"GenerateCamParams.init_fit_iter is {fits}, but the start is {start} and no mesh that Gaussians could be fitted to: "
            "--init_shape mesh.glb, or --init_fit_iter 0"
        )
    if config.model.pretrained_model_path is not None:
        label, path = "ModelParams.pretrained_model_path", config.model.pretrained_model_path
    if path not in INIT_SHAPES and not os.path.isfile(path):
        raise ValueError(f"{label} is {show(path)}, but there is no such file")
    mask = config.optimization.edit_mask
    if mask is not None and region(mask) is None:
        of_file = mask.lower().endswith(MASK_FILES)
        if not (os.path.isfile(mask) if of_file else os.path.isdir(mask)):
            raise ValueError(
                f"OptimizationParams.edit_mask is {show(mask)}, but there is no such {'file' if of_file else 'folder'}; "
                f"it takes {MEANING}"
            )


def _check_skeleton(config: Config) -> None:
    """Check that the skeleton is there, and a shape that it belongs to."""
    path, guide = config.camera.skeleton, config.guidance.controlnet_guide
    start = config.model.pretrained_model_path or config.camera.init_shape
    if guide == "start" and start in INIT_SHAPES:
        raise ValueError(
            f"GenerateCamParams.skeleton is {show(path)}, but init_shape {start} is no body that it belongs to: --init_shape FILE "
            "starts from its mesh, or --controlnet_guide FILE names that"
        )
    resumed = config.resume is not None or config.start_checkpoint is not None
    if not resumed and not os.path.isfile(str(path)):
        raise ValueError(f"GenerateCamParams.skeleton is {show(path)}, but there is no such file")


def _check_controlnets(config: Config) -> None:
    """Check that each ControlNet has a picture and a scale, and that there is something to make pictures of."""
    params = config.guidance
    keys, kinds, scales = params.controlnet_model_key or (), params.controlnet_kinds, params.controlnet_scale
    if kinds is None or len(kinds) != len(keys):
        raise ValueError(
            f"GuidanceParams.controlnet_kinds is {show(kinds)}, but must name a picture for each of the {len(keys)} ControlNets of "
            f"controlnet_model_key: {', '.join(PICTURES)}"
        )
    guide = params.controlnet_guide
    if "pose" in kinds and config.camera.skeleton is None:
        raise ValueError(
            f"GuidanceParams.controlnet_kinds has 'pose', the picture of a skeleton, but there is none: --skeleton FILE names it, or "
            f"choose among {', '.join(kind for kind in PICTURES if kind != 'pose')}"
        )
    if scales is not None and (min(scales) < 0 or len(scales) not in (1, len(keys))):
        raise ValueError(
            f"GuidanceParams.controlnet_scale is {show(scales)}, but must be one number, or one for each of the {len(keys)} "
            "ControlNets, each at least 0"
        )
    path = guide
    if guide == "start":
        path = config.model.pretrained_model_path or config.camera.init_shape
        if path in INIT_SHAPES:
            raise ValueError(
                f"GuidanceParams.controlnet_guide is 'start', but init_shape {path} has no shape to keep: --controlnet_guide FILE "
                "names a mesh or an asset, or --init_shape FILE starts from a mesh"
            )
    elif not guide.lower().endswith((*START_SUFFIXES, *GAUSSIANS_SUFFIXES)):
        suffixes = ", ".join(dict.fromkeys((*START_SUFFIXES, *GAUSSIANS_SUFFIXES)))
        raise ValueError(
            f"GuidanceParams.controlnet_guide is {show(guide)}, but must be start, or a file of a mesh or of Gaussians ({suffixes})"
        )
    if not os.path.isfile(path):
        raise ValueError(
            f"GuidanceParams.controlnet_guide is {show(guide)}, but there is no file {show(path)}"
        )


def _check_sctd(config: Config) -> None:
    params = config.guidance
    # The prior's own offset is not known yet.
    for offset in segments.STEPS_OFFSETS:
        low, high, _ = segments.time_window(params.t_range, params.max_t_range, TRAIN_TIMESTEPS, offset)
        segments.solver_grid(
            TRAIN_TIMESTEPS,
            config.num_ddim_timesteps,
            phase_num=config.phase_num,
            t_mode=params.t_mode,
            t_threshold=params.t_threshold,
            low=low,
            high=high,
            steps_offset=offset,
        )


def _check_released_sctd(config: Config) -> None:
    params = config.guidance
    low, high, top = segments.indices(params.t_range, params.max_t_range, TRAIN_TIMESTEPS)
    for offset in segments.STEPS_OFFSETS:
        segments.released_edges(
            low,
            top,
            TRAIN_TIMESTEPS,
            phase_num=config.phase_num,
            t_mode=params.t_mode,
            t_threshold=params.t_threshold,
            steps_offset=offset,
        )
    # t is at least s_m + delta_t; s keeps MARGIN from both s_m and t.
    _within("delta_t", params.delta_t, 2 * segments.MARGIN, high - low, "SCTD as released")


def _check_gcs(config: Config) -> None:
    params = config.guidance
    _, high, top = segments.indices(params.t_range, params.max_t_range, TRAIN_TIMESTEPS)
    # e ~ U(t - 2 delta, t - delta - MARGIN), and s = t - delta is above 0 for some index t below the window's end.
    least = segments.MARGIN + 1
    _within("delta_t", params.delta_t, least, high - 2, "GCS")
    if params.annealing_intervals:
        _within("delta_t_start", params.delta_t_start, least, top - 2, "GCS")


def _within(key: str, value: int, least: int, most: int, method: str) -> None:
    if least > most:
        raise ValueError(
            f"t_range and max_t_range leave {method} no room: the highest t must be above {least}"
        )
    if not least <= value <= most:
        raise ValueError(
            f"GuidanceParams.{key} is {value}, but with {method} and this t_range it must be in [{least}, {most}]"
        )


def remarks(config: Config, *, fast: bool) -> list[str]:
    """List sentences on values that do what their owner may not expect. fast: whether `fast` has reported its own."""
    return [*_moving_views(config), *([] if fast else _left_out(config))]


def _moving_views(config: Config) -> list[str]:
    camera, params = config.camera, config.optimization
    every = params.scale_up_cameras_iter
    first = every * max(1, -(-params.progressive_view_iter // every))
    low, high = camera.phi_range
    moves = low * high > 0 and params.phi_scale_up_factor > 1
    if not moves or params.use_progressive or first >= params.iterations:
        return []
    return [
        f"GenerateCamParams.phi_range is {show(camera.phi_range)}, on one side of the front: from iteration {first} on its "
        f"views move further away from there, as in the originals; --phi_scale_up_factor 1 holds both angles."
    ]


def _left_out(config: Config) -> list[str]:
    params = config.guidance
    if not config.is_papers_sctd or params.w_self > 0:
        return []
    return [
        f"GuidanceParams.w_self is {show(params.w_self)}: SCTD runs without its self-consistency, which the paper has in Eq. 10."
    ]


def idle(config: Config) -> list[str]:
    """List the keys that request something impossible beside the others, each with its value and the reason.

    Keys of other methods that the originals' files always hold are not among them.
    """
    params, method = config.guidance, config.guidance_type
    with_method = f"guidance_type {method}"
    variant = f"sctd_variant {params.sctd_variant}" if method == "sctd" else with_method
    papers_sctd = config.is_papers_sctd
    optimization = config.optimization
    first = optimization.start_reset_iter
    no_time = optimization.iterations <= first + 1
    shape, pretrained = config.camera.init_shape, config.model.pretrained_model_path is not None
    no_share = f"small_encoder_share {params.small_encoder_share:g}"
    start = "pretrained_model_path" if pretrained else f"init_shape {shape}"
    model_key = params.hf_key or params.model_key
    single_file = os.path.isfile(os.path.expanduser(model_key))
    tables = {
        "GuidanceParams": (
            ("is_safe_tensor", params.is_safe_tensor and not single_file, f"model_key {model_key}"),
            ("sds", params.sds and method != "sds", with_method),
            ("sctd_variant", params.sctd_variant == "released" and method != "sctd", with_method),
            ("approximate", not params.approximate and not papers_sctd, variant),
            ("w_self", params.w_self != 1 and not papers_sctd, variant),
            ("w_cp", (params.w_cp or 0) > 0 and papers_sctd, variant),
            ("cds_variant", params.cds_variant == "released" and method != "cds", with_method),
            ("cds_stage", params.cds_stage != "both" and method != "cds", with_method),
            (
                "refine_model_key",
                (params.refine_from_iter or 0) > optimization.iterations,
                f"refine_from_iter {params.refine_from_iter}, past the last iteration",
            ),
            (
                "multiview_model_key",
                params.multiview_model_key and params.multiview_share == 0,
                "multiview_share 0",
            ),
            (
                "multiview_share",
                params.multiview_share != 0.5 and params.multiview_model_key is None,
                "no multiview_model_key",
            ),
            *(
                (key, getattr(params, key) != GuidanceParams.model_fields[key].default, f"no {owner}")
                for owner, keys in (
                    ("controlnet_model_key", OF_CONTROLNETS),
                    ("image_prompt", OF_IMAGE_PROMPT),
                )
                if getattr(params, owner) is None
                for key in keys
                if key != "controlnet_guide" or config.camera.skeleton is None
            ),
            ("image_prompt", params.image_prompt and not params.has_image_prompt, "image_prompt_scale 0"),
            (
                "controlnet_model_key",
                params.controlnet_model_key and params.controlnet_ratio == 0,
                "controlnet_ratio 0",
            ),
            (
                "controlnet_model_key",
                params.controlnet_model_key and not params.controlnets,
                f"controlnet_scale {show(params.controlnet_scale)}",
            ),
            (
                "pose_model_key",
                params.pose_model_key != GuidanceParams.model_fields["pose_model_key"].default
                and (params.rectify_poses == 0 or model_key in TOY_PRIORS),
                "rectify_poses 0" if params.rectify_poses == 0 else f"model_key {model_key}",
            ),
            ("small_encoder_key", params.small_encoder_key and params.encoder == "full", "encoder full"),
            ("encoder", params.encoder == "small" and not config.small_encoder_iterations, no_share),
            (
                "check_interval",
                params.check_interval and exact(config) == config,
                "nothing that fast leaves out",
            ),
            ("BEG", params.BEG and optimization.keeps_color, "keep color"),
            ("BEG", params.BEG and not optimization.keeps_color and no_time, f"start_reset_iter {first}"),
        ),
        "ModelParams": (("input_axes", config.model.input_axes and not pretrained, start),),
        "GenerateCamParams": (
            ("init_shape", shape not in INIT_SHAPES and pretrained, start),
            ("pointe_model", config.camera.pointe_model and (shape != "pointe" or pretrained), start),
            ("init_axes", config.camera.init_axes and (shape in RANDOM_SHAPES or pretrained), start),
        ),
        "OptimizationParams": tuple(
            (key, getattr(optimization, key), f"keep {optimization.keep}")
            for key in OF_KEPT[optimization.keep]
        ),
    }
    return [
        f"{section}.{key} ({show(getattr(getattr(config, SECTIONS[section]), key))}) with {reason}"
        for section, table in tables.items()
        for key, cannot_act, reason in table
        if cannot_act
    ]
