"""Find which of torch's kernels computes the attention of a prior's U-Net."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend

from guidance import Condition
from guidance.prior import LatentPrior
from guidance.prior.shadow import META, shadow


def attention_backends(prior: LatentPrior, latents: int = 8, tokens: int = 77) -> dict[str, str]:
    """Name what torch takes on the prior's device, in its precision, by the shapes of a call with so many latents."""
    shapes = dict.fromkeys(attention_shapes(prior, latents, tokens))
    return {_said(query, key): _backend(prior, query, key) for query, key in shapes}


def attention_shapes(prior: LatentPrior, latents: int, tokens: int) -> list[tuple[torch.Size, torch.Size]]:
    """List the shapes of query and key, [B, heads, L, D] and [B, heads, S, D], in the order in which the U-Net comes to them."""
    found: list[tuple[torch.Size, torch.Size]] = []

    def noted(query: Tensor, key: Tensor, value: Tensor, **settings: Any) -> Tensor:
        found.append((query.shape, key.shape))
        return torch.empty_like(query)

    z = torch.empty(latents, *prior.latents, device=META)
    width = prior.blank_condition(1).parts["text"].shape[-1]
    cond = Condition({"text": torch.empty(latents, tokens, width, device=META)})
    with torch.no_grad(), patch.object(F, "scaled_dot_product_attention", noted):
        shadow(prior).predict(z, torch.zeros(latents, dtype=torch.long), cond)
    return found


def _said(query: torch.Size, key: torch.Size) -> str:
    rows, heads, length, width = query
    return f"{rows} x {heads} heads of {width}, {length} x {key[2]}"


def _backend(prior: LatentPrior, query: torch.Size, key: torch.Size) -> str:
    dtype = next(prior.network.parameters()).dtype

    def like(shape: torch.Size) -> Tensor:
        # Heads lie within tokens, as the projections leave them.
        rows, heads, length, width = shape
        return torch.empty(rows, length, heads, width, dtype=dtype, device=prior.device).transpose(1, 2)

    return SDPBackend(torch._fused_sdp_choice(like(query), like(key), like(key))).name
