"""What `--fast` makes of a configuration: fewer calls of the prior, each of which costs less and is used more often."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from config.schema import Config, GuidanceParams

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
    "iterations",
    "warmup_iter",
    "geo_iter",
    "densification_interval",
    "densify_from_iter",
    "densify_until_iter",
    "opacity_reset_interval",
    "relocate_interval",
    "progressive_view_iter",
    "scale_up_cameras_iter",
    "start_reset_iter",
    "end_reset_iter",
)
"""Keys of OptimizationParams that name an iteration or count iterations."""


def fast(config: Config) -> Keys:
    """Return the keys that `--fast` sets, with their values: the parts that the method has, and fewer iterations."""
    params, guidance = config.optimization, config.guidance
    without = set() if _is_papers_sctd(config) else set(OF_SCTD)
    if guidance.t_mode == "mono":
        # There it is a segment's length too.
        without.add("t_threshold")
    parts = {at: value for at, value in PARTS.items() if at[1] not in without}
    counts: dict[str, Any] = {name: -(-getattr(params, name) // CALLS) for name in COUNTED_IN_CALLS}
    if params.grad_clip is not None:
        first, last, iterations = params.grad_clip
        counts["grad_clip"] = (first, last, iterations / CALLS)
    return {**parts, **{("OptimizationParams", name): value for name, value in counts.items()}}


def exact(config: Config) -> Config:
    """Return the configuration without what `fast` leaves out of a gradient. It is the same where nothing is left out."""
    params = config.guidance
    papers: dict[str, Any] = {}
    if _is_papers_sctd(config):
        papers["w_self"] = 1.0
        if params.t_mode == "uniform" and params.t_threshold >= ONE_STEP:
            papers["t_threshold"] = GuidanceParams().t_threshold
    if config.small_encoder_iterations:
        papers["encoder"] = "full"
    return config.model_copy(update={"guidance": params.model_copy(update=papers)})


def _is_papers_sctd(config: Config) -> bool:
    return config.guidance_type == "sctd" and config.guidance.sctd_variant == "paper"
