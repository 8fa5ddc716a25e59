"""Classifiers of poses for `rectify_poses`: toybox's azimuth regressor for its own priors, CLIP and words for all others."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config.guidance_params import TOY_PRIORS
from config.schema import Config
from guidance.poses import PoseClassifier, PoseRectifier
from guidance.prior.clip import embed_texts, load_clip, normalized
from guidance.prior.model_files import PriorError
from guidance.prompts import VIEW_WORDS

SHARPNESS = 4.0
"""Concentration of p(c | x) around the regressed direction: 96% at the middle of a side that is seen for sure."""


class AzimuthClassifier(PoseClassifier):
    """Four sides by a regressor of the azimuth's cosine and sine.

    Its answer is a mean over what an image may show, and short where it is unsure: p(c | x) is a softmax of SHARPNESS times its
    components towards the sides.

    Args:
        regressor: network from images [V, 3, H, W] in [0, 1] to (cos, sin) [V, 2].
    """

    sides: Tensor

    def __init__(self, regressor: nn.Module) -> None:
        super().__init__(("front", "left", "back", "right"), (0.25,) * 4)
        self.regressor = regressor
        turns = torch.arange(4) * (math.pi / 2)
        self.register_buffer("sides", torch.stack([turns.cos(), turns.sin()]), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return torch.softmax(SHARPNESS * self.regressor(images) @ self.sides, dim=-1)


class WordClassifier(PoseClassifier):
    """Front, side and back by CLIP: the prompt with the words of the views, zero-shot.

    CLIP cannot tell left from right, so the side has half of all views.
    """

    captions: Tensor
    clip: Any

    def __init__(self, clip: Any, captions: Tensor) -> None:
        super().__init__(("front", "side", "back"), (0.25, 0.5, 0.25))
        self.clip = clip
        self.register_buffer("captions", captions, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        size = self.clip.config.vision_config.image_size
        scaled = F.interpolate(images, size=(size, size), mode="bicubic", antialias=True).clamp(0, 1)
        features = F.normalize(self.clip.get_image_features(normalized(scaled)).pooler_output, dim=-1)
        return torch.softmax(self.clip.logit_scale.exp() * features @ self.captions.T, dim=-1)


def load_rectifier(config: Config, device: torch.device) -> PoseRectifier:
    """Load the classifier of a run's poses, and make the re-weighting of its prior with it.

    Raises: PriorError, one sentence, if the classifier cannot be had.
    """
    params = config.guidance
    classifier = _toybox() if (params.hf_key or params.model_key) in TOY_PRIORS else _words(config)
    return PoseRectifier(classifier, params.rectify_poses, params.weighting).to(device)


class _Direction(nn.Module):
    """The part of toybox's judge that regresses the azimuth."""

    def __init__(self, image: nn.Module, to_azimuth: nn.Module) -> None:
        super().__init__()
        self.image, self.to_azimuth = image, to_azimuth

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.to_azimuth(self.image(images))
        return found


def _toybox() -> PoseClassifier:
    # The package is there: the prior is in it.
    from toybox.judge import load_judge

    judge = load_judge()
    return AzimuthClassifier(_Direction(judge.image, judge.to_azimuth))


def _words(config: Config) -> PoseClassifier:
    where, text = config.guidance.pose_model_key, config.guidance.text
    try:
        clip, tokenizer, missing = load_clip(where)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise PriorError(
            f"pose_model_key is '{where}', which cannot be loaded ({reason}): give the folder of a CLIP in transformers' layout."
        ) from None
    if missing:
        raise PriorError(f"pose_model_key is '{where}', but it lacks {missing[0]}: give a whole CLIP.")
    front, side, back, _ = VIEW_WORDS
    with torch.no_grad():
        return WordClassifier(
            clip, embed_texts(clip, tokenizer, [text + words for words in (front, side, back)])
        )
