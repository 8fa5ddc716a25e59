"""The ways to compile a U-Net, and the one that is the fastest here."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from guidance.prior.compiled import Compiled, Sized
from guidance.prior.graph_sizes import graph_sizes, padding
from utils.device import release_memory, unreserved_memory
from utils.moments import milliseconds

MODES = {"static": "reduce-overhead", "max": "max-autotune"}
"""Ways with a graph for each of a few batch sizes -> torch.compile's names for them."""
CALLS_TO_RECORD = 3
"""Calls of a size until its CUDA graph is replayed: the second records it, the third replays it."""

logger = logging.getLogger(__name__)

Unet = Compiled | Sized


@torch.no_grad()
def compiled_unet(
    plain: Callable[..., Tensor],
    inputs: Callable[[int], tuple[Tensor, ...]],
    how: str,
    shares: Mapping[int, float],
    device: torch.device,
    needed: int = 0,
    name: str = "The U-Net",
) -> Unet:
    """Compile `plain` before its first call in earnest, and log the choice.

    Args:
        plain: noise [B, C, h, w] of latents, times and texts, without a gradient.
        inputs: makes such inputs for a number of rows.
        how: "dynamic", one graph for batches of any size; "static", one for each of a few sizes, replayed
            without the host where the device can; "max", the same with kernels that torch tries out; "auto",
            the faster of the first two.
        shares: frequency of each batch size.
        needed: bytes that "auto" has to leave of the device's memory.
        name: the network's, in messages.
    """
    ways = ("dynamic", "static") if how == "auto" else (how,)
    unets = {way: _made(name, plain, way, shares) for way in ways}
    if how != "auto":
        _warm(unets[how], inputs, shares)
        _say(how, unets[how], shares)
        return unets[how]
    took = {}
    for way, unet in unets.items():
        if not _warm(unet, inputs, shares):
            continue
        if isinstance(unet, Sized) and unreserved_memory(device) < needed:
            logger.info("%s: %s graphs leave too little memory to the rest of the run.", name, way)
            continue
        took[way] = _mean_milliseconds(unet, inputs, shares, device)
    chosen = min(took, key=lambda way: took[way]) if took else ways[0]
    # What the other one holds of the device's memory is needed for the run.
    unet = unets[chosen]
    unets.clear()
    gc.collect()
    release_memory(device)
    _say(chosen, unet, shares, took)
    return unet


def _made(name: str, plain: Callable[..., Tensor], way: str, shares: Mapping[int, float]) -> Unet:
    if way in MODES:
        return Sized(name, plain, graph_sizes(shares), MODES[way])
    return Compiled(name, plain, batched=True)


def _warm(unet: Unet, inputs: Callable[[int], tuple[Tensor, ...]], shares: Mapping[int, float]) -> bool:
    """Compile it; return whether that went well."""

    def run() -> None:
        # The largest first: what it takes of the memory is enough for the others. One graph for all sizes is compiled by
        # the first of them, but each size has algorithms of its own to be found.
        sizes, calls = (unet.sizes, CALLS_TO_RECORD) if isinstance(unet, Sized) else (sorted(shares), 1)
        for size in reversed(sizes):
            for _ in range(calls):
                unet(*inputs(size))

    return unet.warm_up(run)


def _mean_milliseconds(
    unet: Unet,
    inputs: Callable[[int], tuple[Tensor, ...]],
    shares: Mapping[int, float],
    device: torch.device,
) -> float:
    """Mean time of a call on the device."""
    return sum(share * milliseconds(partial(unet, *inputs(size)), device) for size, share in shares.items())


def _say(way: str, unet: Unet, shares: Mapping[int, float], took: Mapping[str, float] | None = None) -> None:
    asked = ", ".join(f"{size} ({share:.0%})" for size, share in sorted(shares.items()))
    graphs = "one graph for all"
    if isinstance(unet, Sized):
        added = f"{padding(shares, unet.sizes):.1%} of rows added"
        graphs = f"graphs for {', '.join(map(str, unet.sizes))}, {added}"
    times = ", ".join(f"{way} {ms:.2f} ms a call" for way, ms in (took or {}).items())
    logger.info(
        "%s: %s%s; batches of %s; %s.",
        unet.name,
        way,
        f" (measured: {times})" if times else "",
        asked,
        graphs,
    )
