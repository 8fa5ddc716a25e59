"""FID: how far the views of a set of assets are from images of the prior."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import guidance
from config import Config
from evaluation.assets import Asset, Features, ScoredAsset, Scores
from evaluation.frechet import Moments, frechet_distance
from evaluation.inception import Inception, load_inception
from evaluation.prior_images import PriorImages
from evaluation.scorers.contract import Column, ScorerError, ScorerOptions
from evaluation.scorers.weights import find_file, fingerprint
from guidance.prior import LatentPrior, PriorError
from guidance.prior.model_files import find_model
from utils.device import is_accelerator, tune
from utils.media import read_image

INCEPTION_FILE = "pt_inception-2015-12-05-6726825d.pth"
GUIDANCE_SCALE = 7.5
"""Guidance scale that is Stable Diffusion's default; SegmentDreamer does not give the one of its 50,000 images."""
AT_ONCE = 32


class FidScorer:
    """Fréchet inception distance (Heusel et al., 2017) of all views of a set of assets to images of the prior.

    The prior's images are made when they are first needed, and kept.
    """

    name = "fid"
    columns: tuple[Column, ...] = ()
    set_columns: tuple[Column, ...] = (Column("fid", "FID", ".1f", -1),)

    def __init__(self, network: Inception, images: Callable[[], list[Path]], device: torch.device) -> None:
        self._network, self._images, self._device = network.to(device), images, device
        self._network_id = fingerprint(network)
        self.identity = repr(("fid", self._network_id))

    @classmethod
    def load(
        cls, options: ScorerOptions, prompts: Sequence[str], config: Config, device: torch.device
    ) -> FidScorer:
        """Load the scorer. Raises ScorerError, one sentence."""
        path = find_file("inception", options.inception, INCEPTION_FILE)
        try:
            network, images = load_inception(path), prior_images(config, prompts, device)
        except (ValueError, PriorError) as error:
            raise ScorerError(str(error)) from None
        make = partial(images.make, options.images, options.fid_images, partial(tuned_prior, config, device))
        return cls(network, make, device)

    def score(self, asset: Asset, views: Tensor) -> Scores:
        return Scores({}, self.features(views.split(AT_ONCE)))

    def score_set(self, assets: Sequence[ScoredAsset]) -> Mapping[str, float]:
        views = np.concatenate([asset.features for asset in assets])
        return {"fid": frechet_distance(Moments.of(views), self.reference)}

    @torch.no_grad()
    def features(self, batches: Iterable[Tensor]) -> Features:
        """Features [N, 2048] float32, of images [B, 3, H, W] in [0, 1] that come in batches."""
        return np.concatenate([self._network(some.to(self._device)).numpy(force=True) for some in batches])

    @cached_property
    def reference(self) -> Moments:
        """Moments of the prior's images; kept beside them."""
        files = self._images()
        kept = files[0].parent / f"moments-{len(files)}-{self._network_id}.npz"
        return Moments.kept(kept, lambda: Moments.of(self.features(_read(files))))


def prior_images(config: Config, prompts: Sequence[str], device: torch.device) -> PriorImages:
    """Images of the prior that a configuration names, in turn of each prompt. Raises PriorError if it is nowhere."""
    key = config.guidance.hf_key or config.guidance.model_key
    if guidance.prior.class_of(config).edits:
        raise PriorError(
            f"model_key '{key}' edits pictures and makes none of words alone, which fid compares with."
        )
    folder = find_model(key, half=config.guidance.fp16 and is_accelerator(device))
    wanted = config.guidance.prediction_type
    with (folder.path / folder.weight_files("unet")[0]).open("rb") as file:
        # The head names every weight and has the first of their numbers: enough to distinguish trainings.
        head = file.read(2**20) + (wanted.encode() if wanted != "auto" else b"")
    weights = hashlib.sha256(head).hexdigest()[:12]
    return PriorImages(key, weights, tuple(dict.fromkeys(prompts)), GUIDANCE_SCALE)


def tuned_prior(config: Config, device: torch.device) -> LatentPrior:
    """The prior without an image prompt, to make images as fast as the device can. Raises PriorError."""
    tune(device, deterministic=config.deterministic)
    of_words = config.model_copy(
        update={"guidance": config.guidance.model_copy(update={"image_prompt": None})}
    )
    return guidance.prior.load_prior(of_words, device)


def _read(files: Sequence[Path]) -> Iterable[Tensor]:
    with tqdm(total=len(files), desc="features of the prior's images", unit="image") as bar:
        for start in range(0, len(files), AT_ONCE):
            some = files[start : start + AT_ONCE]
            yield torch.stack([read_image(file) for file in some])
            bar.update(len(some))
