"""The original that a prior which edits is shown: what the run starts from, seen as each of its views is seen."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from config import Config
from config.camera_params import INIT_SHAPES
from gaussian_renderer.training_views import TrainingViews
from guidance.prior import PriorError, class_of
from scene.guide_shape import GuideShape, load_guide_shape, start_file
from utils.files import digest_of_file
from utils.rng import Draws

logger = logging.getLogger(__name__)


class Original:
    """An asset, or a mesh as discs on its faces, that does not change in a run.

    Args:
        shape: the start.
        path: its file.
        antialiasing: as the run's own Gaussians are rendered.

    Attributes:
        fingerprint: digest of its file.
    """

    def __init__(self, shape: GuideShape, path: str, *, antialiasing: bool) -> None:
        # Discs are smaller than a pixel.
        self._gaussians, self._antialiasing = shape.gaussians, antialiasing or shape.normals is not None
        self.fingerprint = digest_of_file(Path(path))

    def images(self, seen: TrainingViews) -> Tensor:
        """Render it as the guidance sees those views, with their cameras, backgrounds, mirroring and disparity: [V, 3, H, W]."""
        return seen.of(self._gaussians, antialiasing=self._antialiasing).images


def original_of(
    config: Config, priors: Sequence[Config], draws: Draws, device: torch.device
) -> Original | None:
    """Load the original, if one of a run's priors edits; None if none does.

    priors: a configuration for each.

    Raises: PriorError, ValueError and FileNotFoundError, one sentence each.
    """
    editing = [each.guidance for each in priors if class_of(each).edits]
    if not editing:
        return None
    path, model_key = start_file(config), editing[0].hf_key or editing[0].model_key
    if path in INIT_SHAPES:
        raise PriorError(
            f"model_key '{model_key}' edits an original, but the start {path} is none: --pretrained_model_path asset.ply, or "
            "--init_shape with a mesh."
        )
    shape = load_guide_shape(config, draws, device, path, "the original")
    logger.info("The original is %s, as %d Gaussians.", path, len(shape.gaussians))
    return Original(shape, path, antialiasing=config.pipeline.antialiasing)
