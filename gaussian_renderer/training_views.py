"""Views that one iteration renders, with augmentation, and the images of them that the guidance sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from config import Config
from gaussian_renderer import RenderOutput, render
from gaussian_renderer.augment import disparity, perturb, sample_background
from scene.cameras import Cameras
from scene.gaussian_model import GaussianModel, active_sh_degree
from utils.rng import Draws


@dataclass(frozen=True)
class TrainingViews:
    """V views of H × W pixels as one iteration sees them.

    Attributes:
        out: the render.
        disparity: [V, 1, H, W] in [0, 1].
        supersampled: pixels of the render, a side, that make one of `images`.
        geometry: the guidance sees the disparity in place of the colours.
        mirrored: it sees left and right exchanged.
        backgrounds: [V, 3] in [0, 1].
        guide: by title, pictures [V, 3, h, w] of a guide, as the guidance sees them beside the images.
    """

    cameras: Cameras
    out: RenderOutput
    disparity: Tensor
    supersampled: int
    geometry: bool
    mirrored: bool
    backgrounds: Tensor
    guide: Mapping[str, Tensor] = field(default_factory=dict)

    @cached_property
    def images(self) -> Tensor:
        """Images [V, 3, H / SSAA, W / SSAA] that the guidance sees."""
        return self._as_seen(self.disparity.expand(-1, 3, -1, -1)) if self.geometry else self.colors

    @cached_property
    def colors(self) -> Tensor:
        """The render's colours, shaped like `images`, which they are unless the guidance sees the disparity."""
        return self._as_seen(self.out.rgb)

    def _as_seen(self, pixels: Tensor) -> Tensor:
        """Average each square of `supersampled` pixels a side of [V, C, H, W], and exchange left and right if wanted."""
        images = F.avg_pool2d(pixels, self.supersampled)
        # Prompts name no left and no right, so a mirrored view is another view of the same prompt.
        return images.flip(-1) if self.mirrored else images

    def pixels(self) -> list[Tensor]:
        """List the tensors that `images` and `colors` are made of."""
        return [self.out.rgb, self.disparity]

    @torch.no_grad()
    def of(self, gaussians: GaussianModel, *, antialiasing: bool) -> TrainingViews:
        """Render other Gaussians as these are seen: by the same cameras, over the same backgrounds, mirrored if they are."""
        out = render(gaussians, self.cameras, self.backgrounds, antialiasing=antialiasing)
        return replace(self, out=out, disparity=disparity(out, self.cameras))

    def detached(self) -> TrainingViews:
        """Cut the views off from the Gaussians: a gradient of `images` or `colors` ends in the `pixels()`."""
        rgb, disparity = (pixels.detach().requires_grad_() for pixels in self.pixels())
        return replace(self, out=replace(self.out, rgb=rgb), disparity=disparity)


def training_views(
    gaussians: GaussianModel,
    cameras: Cameras,
    config: Config,
    step: int,
    views: range,
    draws: Draws,
    views_per_set: int = 1,
) -> TrainingViews:
    """Render the `views` of iteration `step` (from 1), whose `cameras` are given, with the configuration's
    augmentations.

    All augmentations but the background are the same for every view of an iteration, and that is the same for every
    view of a set.
    """
    params, model = config.optimization, config.model
    rng = draws.at("augment", step)
    as_latent, flipped = torch.rand(2, generator=rng).tolist()
    # Of a geometry that is kept, the disparity has nothing to teach.
    geometry = not params.keeps_geometry and (as_latent < params.as_latent_ratio or step < params.geo_iter)
    mirrored = flipped < model.flip_aug_ratio
    rngs = draws.of_sets("background", step, views, views_per_set)
    backgrounds = sample_background(model, rngs, gaussians.means.device)
    if views_per_set > 1:
        backgrounds = backgrounds.repeat_interleave(views_per_set, dim=0)
    noisy = perturb(gaussians, model, rng, sh_degree=active_sh_degree(model.sh_degree, step))
    out = render(
        gaussians,
        cameras,
        backgrounds,
        sh_degree=noisy.sh_degree,
        scales=noisy.scales,
        shs=noisy.shs,
        antialiasing=config.pipeline.antialiasing,
    )
    return TrainingViews(
        cameras,
        out,
        disparity(out, cameras),
        config.camera.SSAA,
        geometry=geometry,
        mirrored=mirrored,
        backgrounds=backgrounds,
    )
