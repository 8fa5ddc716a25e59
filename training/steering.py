"""Steering by a guide: in the iterations that have ControlNets, each view's condition gets the guide's pictures of it."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from config import Config
from gaussian_renderer.guide_pictures import POSE, guide_pictures
from guidance.prior import LatentPrior, controls_of, image_prompt_of
from scene.cameras import Cameras
from scene.guide_shape import GuideShape, guide_file, load_guide_shape
from scene.skeleton.openpose import KEYPOINTS, Keypoints, keypoints_of
from scene.skeleton.skeleton import Skeleton
from utils.files import digest_of_file
from utils.rng import Draws

logger = logging.getLogger(__name__)


class Steering:
    """The pictures of a guide that a run's ControlNets are shown.

    Args:
        shape: the guide.
        config: the run's.
        draws: decide, by a use of their own, which iterations have ControlNets.

    Attributes:
        fingerprint: digest of the guide's file, and of the skeleton's where its picture is shown.
    """

    def __init__(self, shape: GuideShape, config: Config, draws: Draws) -> None:
        self._shape, self._params, self._draws = shape, config.guidance, draws
        files = [guide_file(config), *([] if shape.keypoints is None else [str(config.camera.skeleton)])]
        self.fingerprint = "+".join(digest_of_file(Path(file)) for file in files)

    def pictures(self, prior: LatentPrior, cameras: Cameras, step: int, *, mirrored: bool) -> Tensor | None:
        """Make pictures [V, n, 3, H, W] for n ControlNets, as large as the prior sees views, of cameras (host) of iteration
        `step`; None for a prior without ControlNets, and in iterations that the draw leaves without them."""
        drawn = float(torch.rand((), generator=self._draws.at("controlnet", step)))
        if prior.controlnets is None or drawn >= self._params.controlnet_ratio:
            return None
        kinds = [each.kind for each in self._params.controlnets]
        return guide_pictures(self._shape, cameras, kinds, prior.image_size, mirrored=mirrored)

    def named(self, pictures: Tensor) -> dict[str, Tensor]:
        """Split pictures by the ControlNets, with a title for each."""
        nets = enumerate(zip(self._params.controlnets, pictures.unbind(1)))
        return {
            f"ControlNet {index + 1} is shown the guide's {net.kind}": each for index, (net, each) in nets
        }


def steering(
    config: Config, draws: Draws, device: torch.device, skeleton: Skeleton | None = None
) -> Steering | None:
    """Load the guide of a run, and look for its ControlNets; None for a run without. `skeleton`: the body's, if it has one.

    Raises: PriorError, ValueError and FileNotFoundError, one sentence each.
    """
    params = config.guidance
    if not params.controlnets:
        return None
    controls_of(config)
    shape = load_guide_shape(config, draws, device)
    if skeleton is not None and POSE in (each.kind for each in params.controlnets):
        shape = replace(shape, keypoints=_keypoints(skeleton, str(config.camera.skeleton)))
    nets = ", ".join(f"{each.key} ({each.kind}, {each.scale:g})" for each in params.controlnets)
    logger.info(
        "ControlNets in %.0f%% of the iterations: %s, shown pictures of %s as %d Gaussians.",
        *(100 * params.controlnet_ratio, nets, guide_file(config), len(shape.gaussians)),
    )
    return Steering(shape, config, draws)


def check_image_prompt(config: Config, device: torch.device) -> None:
    """Look for the files of a run's image prompt, if it has one, and log how it acts.

    Raises: PriorError, one sentence.
    """
    found, params = image_prompt_of(config, device), config.guidance
    if found is not None:
        logger.info(
            "Image prompt %s, at scale %g from the front and %g from behind, by %s.",
            found.picture,
            params.image_prompt_scale,
            params.image_prompt_scale * params.image_prompt_behind,
            found.key,
        )


def _keypoints(skeleton: Skeleton, path: str) -> Keypoints:
    """Find the keypoints of a skeleton, and report those that were not. Raises ValueError, one sentence, for none."""
    found = keypoints_of(skeleton)
    if len(found.missing) == len(KEYPOINTS):
        raise ValueError(
            f"{path!r} has no joint with the name of a keypoint, such as left_elbow: its 'openpose' can name them."
        )
    if found.missing:
        logger.warning(
            "%r: no joint has the name of the keypoints %s, so they are not drawn; 'openpose' in the file can name them.",
            *(path, ", ".join(found.missing)),
        )
    if found.assumed:
        logger.warning(
            "%r: no joint has the name of %s, so their places are those of an average head.",
            *(path, ", ".join(found.assumed)),
        )
    return found
