"""Point-E as a whole: text or an image in, a coloured point cloud out."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from point_e.checkpoint import load_model
from point_e.clip import find_clip, image_vector_and_grid, text_vector
from point_e.cloud import PointCloud
from point_e.download import surroundings
from point_e.errors import PointEError, reason_of
from point_e.find import Asked, find_cascade
from point_e.models import StageConfig
from point_e.sampler import Condition, sample
from point_e.transformer import PointTransformer


def load(
    model: str | os.PathLike[str] = "openai",
    *,
    clip: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    offline: bool | None = None,
) -> PointE:
    """Load a base model and its upsampler, downloading what is not on this disk.

    Args:
        model: "openai" (base40M-textvec), the name of a base model, the path of its checkpoint, or a folder.
        clip: a folder with CLIP in transformers' layout or an id on the hub; None takes the model's own.
        offline: download nothing; None leaves that to HF_HUB_OFFLINE.
    Raises: PointEError, one sentence.
    """
    if offline is None:
        offline = surroundings().offline
    device = _resolve(device)
    cascade = find_cascade(os.fspath(model), offline=offline)
    networks = tuple(load_model(*pair, device) for pair in zip(cascade.files, cascade.stages))
    folder = None
    if cascade.asked != "nothing":
        name = cascade.clip if clip is None else os.fspath(clip)
        folder = find_clip(name, text=cascade.asked == "text", offline=offline)
    return PointE(cascade.stages, networks, cascade.asked, folder, device)


@dataclass(frozen=True)
class PointE:
    """Point-E: two stages, each a configuration and its model; what the first makes points from; and CLIP's
    folder.

    The three methods take a seed of all noise, which means the same on every device up to rounding; the steps
    of each stage's sampler and the guidance scale of the base model, by default their own (64 and 3 for the
    published ones). They raise PointEError, one sentence.
    """

    stages: tuple[StageConfig, ...]
    networks: tuple[PointTransformer, ...]
    asked: Asked
    clip: Path | None
    device: torch.device

    def from_text(
        self,
        prompt: str,
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance_scale: float | None = None,
        progress: bool = True,
    ) -> PointCloud:
        """A point cloud of `prompt`. The upsampler sees no image, as OpenAI's example has it."""
        folder = self._folder_for("text")
        if not prompt.strip():
            raise PointEError("the prompt is blank, but it must say what the points are to show.")
        _check(seed, steps, guidance_scale)
        told = {"vector": text_vector(folder, prompt, self.device)}
        return self._sample(told, seed, steps, guidance_scale, progress)

    def from_image(
        self,
        image: Image.Image | str | os.PathLike[str],
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance_scale: float | None = None,
        progress: bool = True,
    ) -> PointCloud:
        """A point cloud of the object that an image or its file shows, best on white; both stages see it."""
        folder = self._folder_for("image")
        _check(seed, steps, guidance_scale)
        if not isinstance(image, Image.Image):
            image = open_image(image)
        told = dict(zip(("vector", "grid"), image_vector_and_grid(folder, image, self.device)))
        return self._sample(told, seed, steps, guidance_scale, progress)

    def from_nothing(
        self,
        *,
        seed: int = 0,
        steps: int | None = None,
        progress: bool = True,
    ) -> PointCloud:
        """A point cloud of anything, by base40M-uncond."""
        if self.asked != "nothing":
            raise PointEError(f"this model needs {_in_words(self.asked)}; base40M-uncond does without.")
        _check(seed, steps, None)
        return self._sample({}, seed, steps, None, progress)

    def _folder_for(self, given: Asked) -> Path:
        if self.asked != given or self.clip is None:
            other = "base40M-textvec" if given == "text" else "base40M, base300M or base1B"
            raise PointEError(
                f"this model makes points from {_in_words(self.asked)}, not from {_in_words(given)}; use {other}."
            )
        return self.clip

    def _sample(
        self,
        told: dict[str, Tensor],
        seed: int,
        steps: int | None,
        guidance_scale: float | None,
        progress: bool,
    ) -> PointCloud:
        """A sample of both stages. told: CLIP's "vector" [1, D] and "grid" [1, L, W], as far as they are known."""
        conditions = [condition_of(stage, told) for stage in self.stages]
        scales = [stage.guidance_scale for stage in self.stages]
        if guidance_scale is not None:
            scales[0] = guidance_scale
        counts = [stage.steps if steps is None else steps for stage in self.stages]
        rng = torch.Generator().manual_seed(seed)
        cloud: Tensor | None = None
        with tqdm(total=sum(counts), unit="step", disable=not progress) as bar:
            for stage, network, clip, count, scale, name in zip(
                self.stages, self.networks, conditions, counts, scales, ("base", "upsample")
            ):
                bar.set_description(name)
                cloud = sample(
                    network,
                    stage,
                    Condition(clip, cloud),
                    1,
                    rng,
                    steps=count,
                    # Without an image an upsampler has nothing to be guided to.
                    scale=scale if clip is not None and bool(clip.any()) else 1.0,
                    on_step=bar.update,
                )
        assert cloud is not None
        points, colors = cloud[0].cpu().split([3, 3], dim=1)
        if not bool(torch.isfinite(cloud).all()):
            raise PointEError("the model made points that are not finite; its checkpoint may be damaged.")
        return PointCloud(points.contiguous(), colors.clamp(0, 255).round() / 255)


def condition_of(stage: StageConfig, told: dict[str, Tensor]) -> Tensor | None:
    """The part of `told` that a stage takes, zeros if it takes what is not there. Raises PointEError for
    another width.
    """
    model = stage.model
    if model.clip == "none":
        return None
    if model.clip not in told:
        device = next(iter(told.values())).device if told else None
        shape = (1, model.clip_tokens, model.clip_width) if model.clip == "grid" else (1, model.clip_width)
        return torch.zeros(shape, device=device)
    given = told[model.clip]
    wanted = [model.clip_tokens, model.clip_width] if model.clip == "grid" else [model.clip_width]
    if list(given.shape[1:]) != wanted:
        raise PointEError(
            f"this CLIP makes a {model.clip} of {list(given.shape[1:])} numbers, but the model needs {wanted}."
        )
    return given


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """The image in a file, upright. Raises PointEError if there is none."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PointEError(f"the image {os.fspath(path)!r} cannot be read: {reason_of(error)}.") from error


def _check(seed: int, steps: int | None, guidance_scale: float | None) -> None:
    if not 0 <= seed < 2**63:
        raise PointEError(f"seed is {seed}, but it must be from 0 to 2^63 - 1.")
    if steps is not None and steps < 1:
        raise PointEError(f"steps is {steps}, but it must be at least 1.")
    if guidance_scale is not None and not math.isfinite(guidance_scale):
        raise PointEError(f"guidance_scale is {guidance_scale}, but it must be a finite number.")


def _in_words(asked: Asked) -> str:
    return {"text": "text", "image": "an image", "nothing": "nothing"}[asked]


def _resolve(device: str | torch.device) -> torch.device:
    """The torch device. Raises PointEError if torch does not know it or this machine lacks it."""
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise PointEError(
            f"device is {str(device)!r}, which is not available here ({reason_of(error)})."
        ) from error
