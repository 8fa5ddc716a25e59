"""A prior on the meta device: its results have shape and precision, and no numbers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guidance.poses import PoseRectifier
from guidance.prior.latent_prior import LatentPrior

META = torch.device("meta")
P = TypeVar("P", bound=LatentPrior)


def shadow(prior: P) -> P:
    """Make a prior that takes meta tensors through networks like `prior`'s, which it leaves as they are.

    float16 becomes bfloat16, which takes as many bytes and whose range nobody has to watch.
    """
    # Whatever holds the networks, or methods of `prior`, holds the copies of them in the end.
    copies: dict[int, Any] = {id(getattr(prior, "text_encoder", None)): None}
    copies |= _shapes_of(*prior.networks().values())
    copies |= {id(tensor): _shape_of(tensor) for tensor in prior.image_tokens or ()}
    twin = copy.deepcopy(prior.uncompiled(), copies)
    twin.device = META
    return twin


def shadow_rectifier(rectifier: PoseRectifier) -> PoseRectifier:
    """Make a rectifier like this one, which it leaves as it is, that takes meta tensors."""
    return copy.deepcopy(rectifier, _shapes_of(rectifier))


def _shapes_of(*networks: nn.Module) -> dict[int, Any]:
    """Return the tensors of networks on the meta device, by the identity of those that they stand for."""
    copies: dict[int, Any] = {}
    for network in networks:
        for parameter in network.parameters():
            copies[id(parameter)] = nn.Parameter(_shape_of(parameter), requires_grad=parameter.requires_grad)
        for buffer in network.buffers():
            copies[id(buffer)] = _shape_of(buffer)
    return copies


def _shape_of(tensor: Tensor) -> Tensor:
    dtype = torch.bfloat16 if tensor.dtype == torch.float16 else tensor.dtype
    return torch.empty_like(tensor, device=META, dtype=dtype)


@contextmanager
def fused_attention() -> Iterator[None]:
    """Take meta tensors through attention as accelerators compute it, without its matrix [L, S].

    torch would make the matrix. A mode of torch would not do: activations that are computed again on the way
    back are hidden from it.
    """
    plain = F.scaled_dot_product_attention

    def attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **settings: Any) -> Tensor:
        if query.device != META:
            return plain(query, key, value, *args, **settings)
        return _Fused.apply(query, key, value)

    F.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = plain


class _Fused(torch.autograd.Function):
    """The shapes of a fused kernel: it keeps its inputs, its result and a float32 for each row of the matrix."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Result [B, heads, L, D_value] of query [B, heads, L, D], key [B, heads, S, D], value
        [B, heads, S, D_value]."""
        result = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(
            query, key, value, result, query.new_empty(query.shape[:-1], dtype=torch.float32)
        )
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])
