"""What `--fast` makes of a configuration: fewer calls of the prior, each of which costs less and is used more often."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from config.schema import SECTIONS, Config, GuidanceParams

Keys = Mapping[tuple[str, str], Any]
"""(YAML section, key) -> value."""

CALLS = 3
"""Factor by which a run's calls of the prior become fewer: the steps along each gradient make up for it."""

ONE_STEP = 1000
"""A t_threshold with which SCTD's trajectory always has one step."""

PARTS: Keys = {
    ("OptimizationParams", "raster_steps"): CALLS,
    ("GuidanceParams", "w_self"): 0.0,
    ("GuidanceParams", "t_threshold"): ONE_STEP,
    ("GuidanceParams", "encoder"): "small",
    ("GuidanceParams", "check_interval"): 50,
}
"""The parts; a flag switches each."""

OF_SCTD = ("w_self", "t_threshold")
"""Parts that only SCTD as in the paper has."""

COUNTED_IN_CALLS = (
    ("OptimizationParams", "iterations"),
    ("OptimizationParams", "warmup_iter"),
    ("OptimizationParams", "geo_iter"),
    ("OptimizationParams", "densification_interval"),
    ("OptimizationParams", "densify_from_iter"),
    ("OptimizationParams", "densify_until_iter"),
    ("OptimizationParams", "opacity_reset_interval"),
    ("OptimizationParams", "relocate_interval"),
    ("OptimizationParams", "progressive_view_iter"),
    ("OptimizationParams", "scale_up_cameras_iter"),
    ("OptimizationParams", "start_reset_iter"),
    ("OptimizationParams", "end_reset_iter"),
    ("GuidanceParams", "vis_interval"),
    ("GuidanceParams", "refine_from_iter"),
)
"""(YAML section, key) of those that name an iteration or count iterations."""


def fast(config: Config) -> Keys:
    """Return the keys that `--fast` sets, with their values: the parts that the method has, and fewer iterations."""
    params = config.optimization
    without = set() if config.is_papers_sctd else set(OF_SCTD)
    if config.guidance.t_mode == "mono":
        # There it is a segment's length too.
        without.add("t_threshold")
    parts = {at: value for at, value in PARTS.items() if at[1] not in without}
    counts: dict[tuple[str, str], Any] = {}
    for section, name in COUNTED_IN_CALLS:
        count = getattr(getattr(config, SECTIONS[section]), name)
        if count is not None:
            counts[section, name] = -(-count // CALLS)
    if params.grad_clip is not None:
        first, last, iterations = params.grad_clip
        counts["OptimizationParams", "grad_clip"] = (first, last, iterations / CALLS)
    return {**parts, **counts}


def exact(config: Config) -> Config:
    """Return the configuration without what `fast` leaves out of a gradient. It is the same where nothing is left out."""
    params = config.guidance
    papers: dict[str, Any] = {}
    if config.is_papers_sctd:
        papers["w_self"] = 1.0
        if params.t_mode == "uniform" and params.t_threshold >= ONE_STEP:
            papers["t_threshold"] = GuidanceParams().t_threshold
    if config.small_encoder_iterations:
        papers["encoder"] = "full"
    return config.model_copy(update={"guidance": params.model_copy(update=papers)})
