"""Kernels of the attention in a report."""

from __future__ import annotations

from pathlib import Path

from torch.nn.attention import SDPBackend, sdpa_kernel

from guidance.prior import StableDiffusionPrior
from iterations.attention import attention_backends, attention_shapes
from utils.device import HOST


def test_every_shape_has_the_kernel_that_torch_takes(tiny_prior: Path) -> None:
    """Every attention has a kernel, and it is the one that is left when torch may take no other."""
    prior = StableDiffusionPrior.load(str(tiny_prior), HOST)
    shapes = attention_shapes(prior, latents=3, tokens=16)
    assert len(shapes) == sum(type(module).__name__ == "Attention" for module in prior.unet.modules())
    assert {key[2] for _, key in shapes} == {16, *(query[2] for query, _ in shapes)}
    found = attention_backends(prior, latents=3, tokens=16)
    assert len(found) == len(set(shapes))
    assert set(found.values()) <= set(SDPBackend.__members__)
    for backend in (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION):
        with sdpa_kernel(backend):
            assert set(attention_backends(prior).values()) == {backend.name}
    assert {parameter.device for parameter in prior.unet.parameters()} == {HOST}
