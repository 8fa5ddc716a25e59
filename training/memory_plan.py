"""Number of an iteration's views that go through the networks together, chosen by the free memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

import guidance
from config import Config
from guidance import Condition, PoseRectifier
from guidance.condition import ORIGINAL
from guidance.prior import InstructPix2Pix, LatentPrior
from guidance.prior.shadow import META, fused_attention, shadow, shadow_rectifier
from scene.densify import bytes_per_gaussian
from training.live_memory import LiveMemory
from utils.rng import Draws

GROWTH = 5
"""Multiple of the Gaussians at the start for which room is kept, unless `max_num_gaussians` allows fewer.

Whatever more density control makes finds memory or waits for it.
"""
BYTES_PER_PIXEL = 4 * 34
"""Bytes per pixel of the rasterizer's images, of what guidance and penalties make of them, and of their gradients.

They are an upper bound, in float32. A test counts them.
"""
SHARE_OF_ALLOCATOR = 0.1
"""Share on top of what tensors take: torch's allocator rounds blocks up, and no tensor spans pieces of two blocks."""
WORKSPACES = 2**29
"""Bytes that convolutions and matrix products may take for themselves."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MemoryPlan:
    """Division of an iteration's views.

    Attributes:
        views_at_once: views that are rendered, guided and differentiated together.
        encode_singly: the autoencoder takes them one by one all the same, and computes its activations again on
            the way back.
    """

    views_at_once: int
    encode_singly: bool

    def __str__(self) -> str:
        views = "1 view" if self.views_at_once == 1 else f"{self.views_at_once} views"
        return f"{views} at a time" + (", the autoencoder view by view" if self.encode_singly else "")


def plans(views: int, together: int = 1) -> Iterator[MemoryPlan]:
    """Yield plans for an iteration's `views`, from the fastest to the most frugal: each takes less memory.

    together: views that the prior sees together, and that are not parted.
    """
    yield MemoryPlan(views, encode_singly=False)
    while True:
        # With one view too: its activations in the autoencoder are gone while the U-Net is asked.
        yield MemoryPlan(views, encode_singly=True)
        if views == together:
            return
        views = half(views, together)


def half(views: int, together: int) -> int:
    """Return half as many views, in whole sets of those that stay together, and at least one."""
    return whole_sets((views + together) // 2, together)


def whole_sets(views: int, together: int) -> int:
    """Return the number of views in as many whole sets as so many views hold, and at least one."""
    return max(views // together, 1) * together


def plan_memory(
    config: Config, prior: LatentPrior, views: int, free_bytes: int, rectifier: PoseRectifier | None = None
) -> MemoryPlan:
    """Choose the first of the `plans` of so many views that fits into `free_bytes`, or else the last; log the choice.

    `free_bytes` are left when the networks have their share. `vram_O` takes the last plan.
    """
    *_, last = tried = list(plans(views, prior.views_per_set))
    free = f"{free_bytes / 1e9:.1f} GB free"
    if config.guidance.vram_O:
        logger.info("vram_O: %s.", last)
        return last
    for plan in tried:
        needed = needed_bytes(config, prior, plan, rectifier)
        if needed <= free_bytes:
            logger.info("%s: %s (%.1f GB).", free, plan, needed / 1e9)
            return plan
    logger.warning("%s: %s, which may take %.1f GB.", free, last, needed / 1e9)
    return last


def needed_bytes(
    config: Config, prior: LatentPrior, plan: MemoryPlan, rectifier: PoseRectifier | None = None
) -> int:
    """Bytes of an iteration beside the networks' weights, with the reserve that allocator and libraries want."""
    camera = config.camera
    gaussians = GROWTH * camera.init_num_pts
    if config.optimization.max_num_gaussians is not None:
        gaussians = min(gaussians, config.optimization.max_num_gaussians)
    pixels = plan.views_at_once * camera.image_w * camera.image_h * camera.SSAA**2
    tensors = (
        guidance_bytes(config, prior, plan, rectifier)
        + BYTES_PER_PIXEL * pixels
        + gaussians * bytes_per_gaussian(config.model.sh_degree, plan.views_at_once)
    )
    return int((1 + SHARE_OF_ALLOCATOR) * tensors) + WORKSPACES


def guidance_bytes(
    config: Config, prior: LatentPrior, plan: MemoryPlan, rectifier: PoseRectifier | None = None
) -> int:
    """Most bytes that the guidance of a part of an iteration's views, forward and backward, or their picture holds.

    It is gone through with `prior`'s networks on the meta device, where tensors have sizes but no numbers: a
    second.
    """
    twin = shadow(prior)
    twin.encode_singly = plan.encode_singly
    # Where both encoders have their turn, the autoencoder, which holds more, has the last one.
    twin.encodes_with = config.encodes_with(config.optimization.iterations)
    weighs = None if rectifier is None else shadow_rectifier(rectifier)
    guide = guidance.build(config, twin, rectifier=weighs)
    views, camera, together = plan.views_at_once, config.camera, prior.views_per_set
    prompts = guidance.embed_prompts(
        config, _NoWords(twin), together, twin.image_tokens, view_words=not prior.edits
    )
    # Halfway to the side: from there Perp-Neg needs the most.
    conditioning = prompts.at(torch.full((views,), 45.0), torch.full((views,), 90.0))
    images = torch.zeros(views, 3, camera.image_h, camera.image_w, device=META, requires_grad=True)
    with LiveMemory() as memory, fused_attention():
        if prior.controlnets is not None:
            conditioning = conditioning.shown(twin.blank_pictures(views))
        if isinstance(twin, InstructPix2Pix):
            conditioning = conditioning.with_part(ORIGINAL, twin.encode_original(images))
        guided = guide(images, conditioning, 0, Draws(0).of_sets("timesteps", 0, range(views), together))
        guided.loss.backward()
        with torch.no_grad():
            twin.decode(guided.gradient)
    return memory.peak


class _NoWords:
    """A text encoder without meaning, on the meta device like its prior."""

    def __init__(self, prior: LatentPrior) -> None:
        self._prior = prior

    def embed(self, prompts: Sequence[str]) -> Condition:
        return self._prior.blank_condition(len(prompts))
