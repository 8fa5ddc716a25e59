"""Classifiers of poses: toybox's, and CLIP's by words."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from config import Config
from gaussian_renderer.showcase import show
from guidance.prior import PriorError, load_rectifier
from guidance.prior.clip import load_clip, normalized
from scene.cameras import orbit
from tests.changed import changed
from tests.evaluation.published import TINY_CLIP, write_clip
from toybox.splats import canonical
from toybox.world import Name
from utils.device import HOST


def test_a_classifier_that_cannot_be_had_is_one_sentence(tiny_config: Config, tmp_path: Path) -> None:
    with pytest.raises(PriorError, match=r"^pose_model_key is '.*', which cannot be loaded \(.*\): give the"):
        load_rectifier(changed(tiny_config, pose_model_key=str(tmp_path)), HOST)


def test_toyboxs_classifier_tells_sides(tiny_config: Config) -> None:
    classifier = load_rectifier(changed(tiny_config, model_key="toybox"), HOST).classifier
    cameras = orbit([0.0, 90.0, 180.0, -90.0], 75.0, 4.2, 0.48, 128, 128)
    seen = classifier(show(canonical(Name("car", "red")), cameras, white=True).rgb)
    assert bool((seen.diagonal() > 0.8).all()), seen
    torch.testing.assert_close(seen.sum(-1), torch.ones(4))


def test_clips_classifier_is_zero_shot(tiny_config: Config, tmp_path: Path) -> None:
    """Its gradient in the pixels is autograd's of transformers' own probabilities, at CLIP's size."""
    folder = str(write_clip(tmp_path / "clip", TINY_CLIP))
    classifier = load_rectifier(changed(tiny_config, pose_model_key=folder, text="a mug"), HOST).classifier
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = classifier(images)
    clip, tokenizer, _ = load_clip(folder)
    texts = [f"a mug, {view} view" for view in ("front", "side", "back")]
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    expected = clip(pixel_values=normalized(images), **tokens).logits_per_image.softmax(-1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    gradients = [torch.autograd.grad(each[:, 0].sum(), images)[0] for each in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)
    assert float(gradients[0].abs().max()) > 0
