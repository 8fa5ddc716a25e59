"""A prior without numbers has the shapes of the true one, and leaves it alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from guidance.prior import StableDiffusionPrior
from guidance.prior.shadow import META, fused_attention, shadow
from tests.guidance.prior.texts import noise_by
from training.live_memory import LiveMemory
from utils.device import HOST


@pytest.fixture
def prior(tiny_prior: Path) -> StableDiffusionPrior:
    return StableDiffusionPrior.load(str(tiny_prior), HOST)


def test_shapes_are_those_of_the_true_one(prior: StableDiffusionPrior) -> None:
    images, t = torch.rand(3, 3, 40, 40), torch.tensor([10, 500, 900])
    cond = torch.rand(3, 16, 12)
    twin, z = shadow(prior), prior.encode(images)
    expected = (z, prior.decode(z), noise_by(prior, z, t, cond))
    leaf = images.to(META).requires_grad_()
    far = twin.encode(leaf)
    for found, true in zip((far, twin.decode(far), noise_by(twin, far, t, cond.to(META))), expected):
        assert (found.shape, found.dtype, found.device) == (true.shape, true.dtype, META)
    far.sum().backward()
    assert leaf.grad is not None
    assert {parameter.device for parameter in prior.unet.parameters()} == {HOST}
    torch.testing.assert_close(prior.encode(images), expected[0], rtol=0, atol=0)


def test_half_precision_stays_as_wide(prior: StableDiffusionPrior) -> None:
    for network in (prior.vae, prior.unet):
        network.to(torch.float16)
    twin = shadow(prior)
    assert twin.unet.dtype == twin.vae.dtype == torch.bfloat16
    assert prior.unet.dtype == torch.float16


def test_fused_attention_never_holds_the_matrix() -> None:
    """Gradients have the shapes of torch's own, and host tensors go there."""
    shapes = (2, 5, 1000, 8), (2, 5, 700, 8), (2, 5, 700, 16)
    inputs = [torch.zeros(shape, device=META, requires_grad=True) for shape in shapes]
    with fused_attention(), LiveMemory() as memory:
        result = F.scaled_dot_product_attention(*inputs)
        result.sum().backward()
    assert result.shape == (2, 5, 1000, 16)
    assert [tensor.grad.shape for tensor in inputs if tensor.grad is not None] == [*shapes]
    assert memory.peak < 4 * 2 * 5 * 1000 * 700
    host = [torch.rand(shape) for shape in shapes]
    expected = F.scaled_dot_product_attention(*host)
    with fused_attention():
        torch.testing.assert_close(F.scaled_dot_product_attention(*host), expected, rtol=0, atol=0)


def test_what_is_compiled_stays_with_the_true_one(prior: StableDiffusionPrior) -> None:
    """A compiled network is made for the true networks' weights."""

    def compiled(*inputs: Tensor) -> Tensor:
        raise AssertionError

    prior._denoise = prior._encoders["vae"] = compiled
    twin = shadow(prior)
    z = twin.encode(torch.zeros(2, 3, 32, 32, device=META))
    assert noise_by(twin, z, torch.tensor([1, 2]), torch.zeros(2, 16, 12, device=META)).shape == z.shape
    with pytest.raises(AssertionError):
        prior.encode(torch.zeros(2, 3, 32, 32))
