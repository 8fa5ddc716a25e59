"""A few iterations of every method on toybox, in numbers: python -m tests.pinned writes them to tests/pinned.json."""

from __future__ import annotations

import json
from pathlib import Path

import config as configuration
from config import Config
from training.faults import settle
from training.state import Training, assemble
from training.step import training_step

PINS = Path(__file__).with_name("pinned.json")
METHODS = ("sds", "ism", "cds", "gcs", "sctd")
STARTS = ("sphere", "pointe")
ITERATIONS = 5
FLAGS = {
    "text": "a red mug",
    "fast": False,
    "init_num_pts": 400,
    "max_scale": 0.018,
    "lambda_tv_l1": 0,
    "C_batch_size": 3,
    "image_w": 64,
    "image_h": 64,
    "iterations": 40,
    "sh_degree": 1,
    "perpneg": True,
    "negative": "ugly",
    # Whatever draws a number.
    "bg_aug_ratio": 1,
    "shs_aug_ratio": 0.5,
    "scale_aug_ratio": 0.5,
    "flip_aug_ratio": 0.5,
    "as_latent_ratio": 0.2,
    "jitter_pose": True,
    # Whatever weighs a part of the loss, and changes the number of Gaussians.
    "lambda_tv": 10,
    "lambda_scale": 1,
    "lambda_alpha": 5,
    "grad_clip": "[1.5, 2.0, 1000]",
    "densify_from_iter": 0,
    "densify_until_iter": 100,
    "densification_interval": 3,
    "densify_grad_threshold": 0.0001,
}


def config_of(method: str, start: str) -> Config:
    flags = {**FLAGS, "guidance_type": method, "init_shape": start}
    return configuration.load([part for name, value in flags.items() for part in (f"--{name}", str(value))])


def facts(method: str, start: str) -> dict[str, float]:
    """Run a few iterations; return numbers by name.

    They are the parts of the loss and the norms of the gradients in each iteration, and means of the asset's parameters and
    of their squares. Rotations are left out: gradients of round Gaussians are nothing but rounding there.
    """
    state = assemble(config_of(method, start))
    found: dict[str, float] = {}
    for step in range(1, ITERATIONS + 1):
        numbers = training_step(state, step).numbers
        settle(state)
        kept = {name: float(value) for name, value in numbers.items() if "rotation" not in name}
        found |= {f"{step} {name}": value for name, value in kept.items()}
    return {**found, **sums(state)}


def sums(state: Training) -> dict[str, float]:
    """Means of the asset's parameters and of their squares."""
    found = {"Gaussians": float(len(state.gaussians))}
    for name, parameter in state.gaussians.raw().items():
        if name != "rotation":
            values = parameter.detach().double()
            found |= {f"mean {name}": float(values.mean()), f"square {name}": float(values.square().mean())}
    return found


def main() -> None:
    pins = {f"{method}, {start}": facts(method, start) for start in STARTS for method in METHODS}
    PINS.write_text(json.dumps(pins, indent=1) + "\n")


if __name__ == "__main__":
    main()
