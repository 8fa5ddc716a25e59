"""The YAML section ``OptimizationParams``: learning rates, regularisers, density control, view schedule."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, model_validator

from config.edit_mask import MEANING, checked
from config.keys import (
    Flag,
    OptionalReal,
    OptionalWhole,
    Real,
    Section,
    Whole,
    key,
    numbers,
    one_of,
    sentence,
)

_CLIP = "three numbers [first limit, last limit, iterations] of at least 0, or [] for none"


class OptimizationParams(Section):
    """Durations are iterations; learning rates are Adam's step per iteration in the parameter's own unit."""

    iterations: Whole = key(5000, "length of the run", ge=1, le=10_000_000)

    raster_steps: Whole = key(
        1,
        "steps of the Gaussians along each gradient of the prior: 1 as in the papers; more of them render the same views "
        "again, but do not ask the prior",
        ge=1,
        le=100,
    )

    keep: Annotated[str, one_of("nothing", "geometry", "color")] = key(
        "nothing",
        "what of the Gaussians stays fixed. geometry: all but the colours; color: the colours, which copies "
        "inherit",
    )
    edit_mask: Annotated[str | None, BeforeValidator(checked)] = key(
        None,
        f"Gaussians that change, all others stay to the last bit: {MEANING}; none: all change",
    )

    # Learning rates: exponential from the first to the final one
    position_lr_init: Real = key(
        1.6e-4, "learning rate of positions at first, in units of default_radius", ge=0
    )
    position_lr_final: Real = key(1.6e-6, "learning rate of positions at the end", ge=0)
    position_lr_delay_mult: Real = key(
        0.01, "positions: first factor of a delay that is never used", unused=True, ge=0, le=1
    )
    position_lr_max_steps: Whole = key(
        30_000, "no effect, as in the originals: schedules end with the run", unused=True, ge=1
    )
    feature_lr: Real = key(5e-3, "learning rate of colour coefficients at first", ge=0)
    feature_lr_final: Real = key(3e-3, "learning rate of colour coefficients at the end", ge=0)
    opacity_lr: Real = key(0.05, "learning rate of opacity logits", ge=0)
    scaling_lr: Real = key(5e-3, "learning rate of log scales at first", ge=0)
    scaling_lr_final: Real = key(1e-3, "learning rate of log scales at the end", ge=0)
    rotation_lr: Real = key(1e-3, "learning rate of quaternions at first", ge=0)
    rotation_lr_final: Real = key(2e-4, "learning rate of quaternions at the end", ge=0)
    adam_betas: Annotated[
        tuple[float, float], numbers(2, "two numbers [β1, β2], each at least 0 and under 1", low=0, below=1)
    ] = key((0.9, 0.999), "Adam's β1 and β2")
    grad_clip: Annotated[tuple[float, float, float] | None, numbers(3, _CLIP, low=0, or_none=True)] = key(
        (2.0, 8.0, 1000.0),
        "limit on each parameter group's gradient norm: [first, last, iterations between them]; [] for none",
    )

    # Density control
    percent_dense: Real = key(
        0.003,
        "scale below which Gaussians are cloned and above which they are split, as a share of default_radius",
        ge=0,
    )
    densify_grad_threshold: Real = key(
        0.00075, "mean screen-space gradient norm from which a Gaussian is cloned or split", ge=0
    )
    densification_interval: Whole = key(100, "iterations between refinements", ge=1)
    densify_from_iter: Whole = key(100, "first iteration of refinement", ge=0)
    densify_until_iter: Whole = key(3000, "last iteration of refinement", ge=0)
    opacity_reset_interval: Whole = key(300, "iterations between resets of the opacity to 0.01", ge=1)
    max_screen_radius: OptionalReal = key(
        None,
        "radius on the screen in pixels above which Gaussians are pruned, once the first reset has passed; null: no "
        "limit, as the originals run (20 in 3DGS)",
        gt=0,
    )
    max_num_gaussians: OptionalWhole = key(
        None, "most Gaussians that density control makes; null: what half of the free memory holds", ge=1
    )
    relocate_interval: Whole = key(
        0, "iterations between moves of faint Gaussians to opaque ones; 0: no moves", ge=0
    )
    max_scale: OptionalReal = key(
        None, "largest scale in world units, enforced after each step; null: no limit", gt=0
    )

    # Colours
    min_color: OptionalReal = key(
        None,
        "least base colour, enforced after each step, because a colour below 0 looks black and gets no "
        "gradient; null: no limit",
        gt=0,
        le=1,
    )

    # Regularisers
    lambda_tv: Real = key(1.0, "weight of the total variation of colours and of disparity", ge=0)
    lambda_tv_l1: Real = key(
        0.0,
        "weight of the total variation of the colours by absolute steps: it takes grains away and keeps edges",
        ge=0,
    )
    lambda_scale: Real = key(1.0, "weight of the mean scale of the Gaussians", ge=0)
    lambda_alpha: Real = key(0.0, "weight of the mean coverage α", ge=0)
    lambda_alpha_binary: Real = key(0.0, "weight of mean 4 α (1 - α), against half-transparent pixels", ge=0)
    lambda_bin: Real = key(10.0, "opacity regulariser; no code reads it", unused=True, ge=0)
    lambda_sat: Real = key(1.0, "saturation regulariser; no code reads it", unused=True, ge=0)
    lambda_radius: Real = key(1.0, "radius regulariser; no code reads it", unused=True, ge=0)
    lambda_b: Real = key(0.1, "brightness regulariser; no code reads it", unused=True, ge=0)

    # Geometry guidance and warm-up
    geo_iter: Whole = key(0, "iteration before which only the disparity image is guided", ge=0)
    as_latent_ratio: Real = key(0.2, "probability of guiding the disparity image", ge=0, le=1)
    warmup_iter: Whole = key(1500, "iterations until the highest t has fallen to that of t_range", ge=1)

    # View range
    use_progressive: Flag = key(False, "keep the view range fixed; if false, it relaxes")
    progressive_view_iter: Whole = key(500, "first iteration at which the view range relaxes", ge=0)
    progressive_view_init_ratio: Real = key(0.2, "starting share of the view range", unused=True, ge=0, le=1)
    scale_up_cameras_iter: Whole = key(500, "iterations between relaxations", ge=1)
    scale_up_factor: Real = key(0.95, "factor on the radius range at each relaxation", gt=0)
    fovy_scale_up_factor: Annotated[
        tuple[float, float], numbers(2, "two numbers [low, high] of at least 0", low=0)
    ] = key((0.75, 1.1), "factors on both ends of the field-of-view range at each relaxation")
    phi_scale_up_factor: Real = key(1.5, "factor on the azimuth and polar ranges at each relaxation", gt=0)

    # Process video
    save_process: Flag = key(True, "save a video of the training")
    pro_frames_num: Whole = key(600, "number of frames of that video", ge=1, le=100_000)
    pro_render_45: Flag = key(False, "take that video from 45 degrees above, not from default_polar")

    # Brightness-Equalised Generation
    thresh: Real = key(0.85, "BEG: quantile over pixels, then over views, of the brightness", ge=0, le=1)
    lgt_thresh: Real = key(0.9, "BEG: brightness above which colours are dimmed", ge=0)
    reset_rate: Real = key(0.8, "BEG: factor on the colour coefficients", ge=0)
    start_reset_iter: Whole = key(1000, "iteration after which BEG acts", ge=0)
    end_reset_iter: Whole = key(4500, "iteration before which BEG acts", ge=0)

    # Parts of older code
    use_control_net_iter: Whole = key(
        10_000_000,
        "first iteration with ControlNet; controlnet_model_key switches it on here",
        unused=True,
        ge=0,
    )
    resnet_lr: Real = key(1e-4, "learning rate of a network that is not here", unused=True, ge=0)
    resnet_lr_init: Real = key(2e-3, "learning rate of a network that is not here", unused=True, ge=0)
    resnet_lr_final: Real = key(5e-5, "learning rate of a network that is not here", unused=True, ge=0)

    @property
    def keeps_geometry(self) -> bool:
        """True if all but the colours stays fixed."""
        return self.keep == "geometry"

    @property
    def keeps_color(self) -> bool:
        """True if the colours stay fixed."""
        return self.keep == "color"

    @model_validator(mode="after")
    def _schedules_are_exponential(self) -> OptimizationParams:
        for first, last in (
            ("position_lr_init", "position_lr_final"),
            ("feature_lr", "feature_lr_final"),
            ("scaling_lr", "scaling_lr_final"),
            ("rotation_lr", "rotation_lr_final"),
        ):
            start, end = getattr(self, first), getattr(self, last)
            if (start == 0) != (end == 0):
                raise sentence(
                    f"OptimizationParams.{first} is {start:g} and {last} is {end:g}, but an exponential "
                    "schedule needs both above 0, or both 0 to hold the parameter fixed."
                )
        return self
