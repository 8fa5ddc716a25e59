"""CLIP ViT-L/14, FID's Inception and ImageReward at their true sizes with random weights, from files as published."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from config import Config
from evaluation.assets import Asset, ScoredAsset
from evaluation.reward_network import RewardNetwork, published_sizes, renamed
from evaluation.scorers import ScorerOptions, load
from gaussian_renderer.showcase import views_of
from scene.gaussian_model import GaussianModel
from tests.changed import changed
from tests.evaluation.published import (
    CLIP_PARAMETERS,
    LARGE_CLIP,
    reward_weights,
    write_clip,
    write_image_reward,
    write_inception,
)
from tests.tiny_diffusers import write_tiny_folder

PROMPTS = ("a red car", "a photo of a blue mug")


def test_clip_has_the_published_size() -> None:
    with torch.device("meta"):
        model = CLIPModel(CLIPConfig(**LARGE_CLIP))
    assert sum(parameter.numel() for parameter in model.parameters()) == CLIP_PARAMETERS


def test_every_published_name_of_image_reward_has_a_place() -> None:
    vision, text = published_sizes()
    with torch.device("meta"):
        network = RewardNetwork(vision, text)
    here = {name: value.shape for name, value in network.state_dict().items()}
    assert here["vision.embeddings.position_embedding"] == (1, 197, 1024)
    assert here["text.encoder.layer.11.crossattention.self.key.weight"] == (768, 1024)
    assert here["text.embeddings.word_embeddings.weight"] == (30524, 768)
    few = {"num_hidden_layers": 1}
    vision.update(few)
    text.update(few)
    published = {name: value.shape for name, value in renamed(reward_weights(vision, text)).items()}
    first = {name: shape for name, shape in here.items() if ".0." in name or "layer" not in name}
    assert published.items() >= first.items()


@pytest.mark.thorough
def test_they_score_views_through_the_command_s_own_path(tmp_path: Path) -> None:
    write_image_reward(tmp_path / "reward")
    options = replace(
        ScorerOptions(),
        clip=str(write_clip(tmp_path / "clip", LARGE_CLIP, torch.float16)),
        inception=str(write_inception(tmp_path / "inception.pth")),
        image_reward=str(tmp_path / "reward"),
        fid_images=3,
        images=tmp_path / "images",
    )
    prior = write_tiny_folder(tmp_path / "prior")
    config = changed(Config(), model_key=str(prior), image_w=48, image_h=48)
    points = torch.rand(300, 3, generator=torch.Generator().manual_seed(0))
    asset = Asset(GaussianModel.from_points(points - 0.5, points, 0, 0.8), PROMPTS[0], config)
    views = views_of(asset.gaussians, config, 2)

    loaded, skipped = load(["clip", "fid", "image_reward"], options, PROMPTS, config, torch.device("cpu"))
    assert skipped == {}
    numbers: dict[str, float] = {}
    for scorer in loaded:
        scores = scorer.score(asset, views)
        numbers |= scores.numbers
        if scores.features is not None:
            assert scores.features.shape == (2, 2048)
            numbers |= scorer.score_set([ScoredAsset(asset.prompt, config, scores.features)])
    assert set(numbers) == {"clip_score", "clip_r_precision", "fid", "image_reward"}
    assert all(map(math.isfinite, numbers.values()))
    assert 0 <= numbers["clip_score"] <= 100
    assert numbers["clip_r_precision"] in (0, 0.5, 1)
    assert numbers["fid"] > 0
    assert len(list((tmp_path / "images").glob("*/*.png"))) == 3
