"""What the judge and the truth say of an asset: 120 views around it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from config import Config
from gaussian_renderer import Gaussians, render
from scene.cameras import turntable
from toybox.captions import caption, parse
from toybox.judge import Judge, load_judge
from toybox.splats import canonical
from toybox.world import COLORS, KINDS

NUM_VIEWS = 120


@dataclass(frozen=True)
class Assessment:
    """recognised: share of the views whose kind and colour the judge names right (R-Precision over all toys and
    "none of these"); janus: share of the views from behind (azimuth beyond ±120°) that it takes for a front (within
    ±60°); psnr: to the true toy's renders on white, in dB."""

    prompt: str
    recognised: float
    janus: float
    psnr: float

    def __str__(self) -> str:
        return (
            f"The judge sees {self.prompt} in {self.recognised:.0%} of {NUM_VIEWS} views around it; "
            f"{self.psnr:.1f} dB PSNR to the true toy."
        )


@torch.no_grad()
def assess(gaussians: Gaussians, prompt: str, config: Config, judge: Judge | None = None) -> Assessment:
    """Judge Gaussians against the toy that the prompt names. Raises ValueError if it names none."""
    kind, color = parse(prompt)
    cameras = turntable(config.camera, NUM_VIEWS)
    device = gaussians.means.device
    images = render(gaussians, cameras.to(device), torch.ones(3, device=device)).rgb.clamp(0, 1).cpu()
    truth = render(canonical(kind, color), cameras, torch.ones(3)).rgb.clamp(0, 1)
    verdict = (judge or load_judge()).judge(images)
    right = (verdict.kind == list(KINDS).index(kind)) & (verdict.color == list(COLORS).index(color))
    behind = cameras.azimuth.abs() > 120
    fronts = (verdict.azimuth.abs() < 60) & (verdict.kind >= 0)
    mse = (images - truth).square().mean(dim=(1, 2, 3))
    return Assessment(
        prompt=caption(kind, color),
        recognised=float(right.float().mean()),
        janus=float(fronts[behind].float().mean()),
        psnr=float((-10 * mse.log10()).mean()),
    )
