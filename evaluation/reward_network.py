"""ImageReward's network (Xu et al., 2023) on transformers' BLIP, from the file that its authors published."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from evaluation.checkpoint import with_weights

if TYPE_CHECKING:
    from transformers import BlipTextConfig, BlipVisionConfig

MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Mean and spread of the rewards over the authors' validation set: scores are in units of that spread."""
RENAMED = (
    (r"blip\.visual_encoder\.cls_token", r"vision.embeddings.class_embedding"),
    (r"blip\.visual_encoder\.pos_embed", r"vision.embeddings.position_embedding"),
    (r"blip\.visual_encoder\.patch_embed\.proj", r"vision.embeddings.patch_embedding"),
    (r"blip\.visual_encoder\.norm", r"vision.post_layernorm"),
    (r"blip\.visual_encoder\.blocks\.(\d+)\.norm(\d)", r"vision.encoder.layers.\1.layer_norm\2"),
    (r"blip\.visual_encoder\.blocks\.(\d+)\.attn\.proj", r"vision.encoder.layers.\1.self_attn.projection"),
    (r"blip\.visual_encoder\.blocks\.(\d+)\.attn", r"vision.encoder.layers.\1.self_attn"),
    (r"blip\.visual_encoder\.blocks", r"vision.encoder.layers"),
    (r"blip\.text_encoder", r"text"),
    (r"mlp\.layers", r"reward"),
)
"""Beginnings of the file's names (salesforce's BLIP) → those of the names here (transformers' BLIP); the
first that fits.
"""
UNUSED = re.compile(r"blip\.(vision|text)_proj\.|.*\.position_ids$")
"""Names of BLIP's contrastive heads, and of a buffer that is computed."""


def published_sizes() -> tuple[BlipVisionConfig, BlipTextConfig]:
    """Sizes of BLIP's large image encoder at 224 pixels, and of BERT base with cross-attention."""
    from transformers import BlipTextConfig, BlipVisionConfig

    vision = BlipVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=224,
        patch_size=16,
        layer_norm_eps=1e-6,
    )
    return vision, BlipTextConfig(encoder_hidden_size=1024, num_attention_heads=12)


class RewardNetwork(nn.Module):
    """Network from an image and a text to how much people would like the one for the other.

    The text's first token, after it has looked at the image, goes through five linear layers.
    """

    def __init__(self, vision: BlipVisionConfig, text: BlipTextConfig) -> None:
        from transformers import BlipTextModel, BlipVisionModel

        super().__init__()
        assert isinstance(vision.image_size, int)
        self.image_size = vision.image_size
        self.vision = BlipVisionModel(vision)
        self.text = BlipTextModel(text, add_pooling_layer=False)
        self.reward = nn.Sequential(
            nn.Linear(text.hidden_size, 1024),
            nn.Dropout(0.2),
            nn.Linear(1024, 128),
            nn.Dropout(0.2),
            nn.Linear(128, 64),
            nn.Dropout(0.1),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )

    def forward(self, pixels: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Scores [B] of normalised images [B, 3, H, W] under tokens [B, L]; mask [B, L] marks those that count."""
        seen = self.vision(pixels).last_hidden_state
        read = self.text(tokens, attention_mask=mask, encoder_hidden_states=seen).last_hidden_state
        return (self.reward(read[:, 0])[:, 0] - MEAN) / STD


def load_reward_network(
    path: Path, sizes: tuple[BlipVisionConfig, BlipTextConfig] | None = None
) -> RewardNetwork:
    """The network with the weights of the published ImageReward.pt; sizes: where they are not the published
    ones.

    Raises ValueError, one sentence, if the file holds others.
    """
    network = RewardNetwork(*(sizes or published_sizes()))
    return with_weights(network, path, renamed, "ImageReward")


def renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published file's weights under the names of `RewardNetwork`."""
    found = {}
    for name, value in weights.items():
        if UNUSED.match(name):
            continue
        for begins, here in RENAMED:
            if match := re.match(begins + r"(?=\.|$)", name):
                name = match.expand(here) + name[match.end() :]
                break
        found[name] = value
    return found
