"""CLIP by transformers: its weights, and the scale of its pixels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of the pixels, by channel."""


def load_clip(where: str) -> tuple[Any, Any, list[str]]:
    """Load a CLIPModel and CLIPTokenizer of transformers by folder or hub id, to the host, and list the weights that it lacks.

    Raises: OSError, ValueError or RuntimeError, as transformers does, if it cannot be had.
    """
    from transformers import CLIPModel, CLIPTokenizer

    loaded: Any = CLIPModel.from_pretrained(where, dtype=torch.float32, output_loading_info=True)
    model, info = loaded
    tokenizer = CLIPTokenizer.from_pretrained(where)
    return model.eval().requires_grad_(False), tokenizer, sorted(info["missing_keys"])


def embed_texts(model: Any, tokenizer: Any, texts: list[str]) -> Tensor:
    """Return unit vectors [P, D] of texts, which are cut at the model's length."""
    length = model.config.text_config.max_position_embeddings
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt")
    return F.normalize(model.get_text_features(**tokens.to(model.device)).pooler_output, dim=-1)


def normalized(pixels: Tensor) -> Tensor:
    """Return pixels [B, 3, H, W] in [0, 1] in the scale of CLIP's training."""
    mean, std = (
        torch.tensor(values)[:, None, None].to(pixels.device, non_blocking=True) for values in (MEAN, STD)
    )
    return (pixels - mean) / std
