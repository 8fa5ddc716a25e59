"""The model of `sd21.py` has the size it claims."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from guidance import PromptEmbeddings, StableDiffusionPrior
from tests import sd21
from utils.device import resolve_device


@pytest.mark.parametrize(
    ("name", "make"),
    [("unet", sd21.make_unet), ("vae", sd21.make_vae), ("text_encoder", sd21.make_text_encoder)],
)
def test_parameter_counts(name: str, make: Callable[[], nn.Module]) -> None:
    with torch.device("meta"):
        network = make()
    assert sum(parameter.numel() for parameter in network.parameters()) == sd21.PARAMETERS[name]


@pytest.mark.slow
def test_full_size_goes_through_the_prior(tmp_path: Path) -> None:
    """Written in half precision, loaded into float32 on the host: one view in, one noise prediction out."""
    folder = sd21.write_sd21_folder(tmp_path, torch.float16)
    prior = StableDiffusionPrior.load(str(folder), resolve_device("cpu"))
    assert prior.image_size == 512
    conditioning = PromptEmbeddings(prior, "a mug").at(torch.zeros(1), torch.full((1,), 90.0))
    assert conditioning.positive.shape == (1, 77, 1024)
    images = torch.rand(1, 3, 512, 512, requires_grad=True)
    latents = prior.encode(images)
    assert latents.shape == (1, 4, 64, 64)
    with torch.no_grad():
        eps = prior.eps(latents, torch.tensor([500]), conditioning.positive)
    assert bool(torch.isfinite(eps).all())
    latents.sum().backward()
    assert bool(torch.isfinite(images.grad).all())
