"""CLIP: how well an asset's views fit its prompt, and whether they fit it better than the other prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from config import Config
from evaluation.assets import Asset, ScoredAsset, Scores
from evaluation.scorers.contract import Column, ScorerError, ScorerOptions
from evaluation.scorers.pixels import clip_pixels
from evaluation.scorers.weights import fingerprint, reason, unavailable
from guidance.prior.clip import embed_texts, load_clip

AT_ONCE = 16


class ClipScorer:
    """CLIP score (Hessel et al., 2021): 100 max(cos, 0), of the views' mean cosine as in torchmetrics. R-Precision
    (DreamFusion): the share of the views to which the asset's own prompt is nearest, among all prompts.

    model, tokenizer: as `load_clip` gives them; prompts: that pool; with one alone, there is no R-Precision.
    """

    name = "clip"
    columns: tuple[Column, ...] = (
        Column("clip_score", "CLIP-L", ".2f", 1),
        Column("clip_r_precision", "R-Precision", ".0%", 1),
    )
    set_columns: tuple[Column, ...] = ()

    def __init__(self, model: Any, tokenizer: Any, prompts: Sequence[str]) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.prompts = tuple(dict.fromkeys(prompts))
        self.captions = self.embed_texts(self.prompts)
        self.identity = repr(("clip", fingerprint(model), self.prompts))

    @classmethod
    def load(
        cls, options: ScorerOptions, prompts: Sequence[str], config: Config, device: torch.device
    ) -> ClipScorer:
        """Load the scorer. Raises ScorerError, one sentence."""
        try:
            model, tokenizer, missing = load_clip(options.clip)
        except (OSError, ValueError, RuntimeError) as error:
            raise unavailable("clip", options.clip, reason(error)) from None
        if missing:
            raise ScorerError(f"clip is {options.clip!r}, but it lacks {missing[0]}.")
        return cls(model.to(device), tokenizer, prompts)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [P, D] on the host, of texts cut at the model's length."""
        return embed_texts(self.model, self.tokenizer, [*texts]).cpu()

    @torch.no_grad()
    def embed_images(self, images: Tensor) -> Tensor:
        """Unit vectors [V, D] on the host, of images [V, 3, H, W] in [0, 1]."""
        size = self.model.config.vision_config.image_size
        found = [
            self.model.get_image_features(clip_pixels(some.to(self.model.device), size)).pooler_output
            for some in images.split(AT_ONCE)
        ]
        return F.normalize(torch.cat(found), dim=-1).cpu()

    def score(self, asset: Asset, views: Tensor) -> Scores:
        """Score an asset's views. Raises ValueError if its prompt is not among `prompts`."""
        own = self.prompts.index(asset.prompt)
        cosines = self.embed_images(views) @ self.captions.T
        numbers = {"clip_score": max(0.0, 100 * float(cosines[:, own].double().mean()))}
        if len(self.prompts) > 1:
            numbers["clip_r_precision"] = float((cosines.argmax(dim=-1) == own).double().mean())
        return Scores(numbers)

    def score_set(self, assets: Sequence[ScoredAsset]) -> Mapping[str, float]:
        return {}
