"""Random weights in the published files' formats, of true or tiny size."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import BertTokenizer, BlipTextConfig, BlipVisionConfig, CLIPConfig, CLIPModel

from evaluation.inception import Inception
from evaluation.reward_network import published_sizes
from tests.tiny_diffusers import write_tokenizer

CLIP_PARAMETERS = 427_616_513
"""Parameters of openai/clip-vit-large-patch14."""
WORDS = ("a", "photo", "of", "red", "blue", "car", "mug", "house", "##s", ",", ".", "!")
# With weights large enough that views and captions differ.
TINY_CLIP: dict[str, object] = {
    "text_config": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 77,
        "initializer_factor": 10.0,
    },
    "vision_config": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
        "initializer_factor": 10.0,
    },
    "projection_dim": 12,
}
LARGE_CLIP: dict[str, object] = {
    "text_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 77,
        "vocab_size": 49408,
    },
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
    },
    "projection_dim": 768,
}
Sizes = tuple[BlipVisionConfig, BlipTextConfig]


def tiny_reward_sizes() -> Sizes:
    """Sizes for an image of 4 patches; the reward's own layers have their true size."""
    sizes = {"intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = BlipVisionConfig(hidden_size=12, image_size=32, patch_size=16, layer_norm_eps=1e-6, **sizes)
    return vision, BlipTextConfig(hidden_size=8, encoder_hidden_size=12, vocab_size=24, **sizes)


def write_clip(folder: Path, sizes: dict[str, object], dtype: torch.dtype = torch.float32) -> Path:
    """Write a CLIP in transformers' layout, with the byte-level tokenizer of the tests."""
    torch.manual_seed(0)
    tokenizer = write_tokenizer(folder)
    config = CLIPConfig(**sizes)
    text = config.text_config
    text.bos_token_id, text.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    text.pad_token_id = tokenizer.pad_token_id
    model = CLIPModel(config)
    nn.Module.to(model, dtype).save_pretrained(folder)  # type: ignore[operator]
    return folder


def write_inception(path: Path) -> Path:
    """Write an Inception as pytorch-fid publishes it: with the classifier."""
    torch.manual_seed(0)
    weights = Inception().state_dict()
    for name, value in weights.items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    weights |= {"fc.weight": torch.randn(1008, 2048), "fc.bias": torch.randn(1008)}
    torch.save(weights, path)
    return path


def write_image_reward(folder: Path, sizes: Sizes | None = None) -> Path:
    """Write ImageReward.pt and vocab.txt into a folder; return the folder."""
    vision, text = sizes or published_sizes()
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(reward_weights(vision, text), folder / "ImageReward.pt")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join([*special, *WORDS]) + "\n")
    return folder


def reward_weights(vision: BlipVisionConfig, text: BlipTextConfig) -> dict[str, Tensor]:
    """Random weights under the names of salesforce's BLIP with ImageReward's head."""
    rng = torch.Generator().manual_seed(0)
    d, h = vision.hidden_size, text.hidden_size
    weights: dict[str, Tensor] = {}

    def add(name: str, *shape: int) -> None:
        weights[name] = torch.randn(shape, generator=rng).mul_(shape[-1] ** -0.5)

    def linear(name: str, inputs: int, outputs: int) -> None:
        add(f"{name}.weight", outputs, inputs)
        add(f"{name}.bias", outputs)

    def norm(name: str, width: int) -> None:
        weights[f"{name}.weight"] = torch.rand(width, generator=rng) + 0.5
        add(f"{name}.bias", width)

    eye = "blip.visual_encoder"
    patches = (int(vision.image_size) // int(vision.patch_size)) ** 2
    add(f"{eye}.cls_token", 1, 1, d)
    add(f"{eye}.pos_embed", 1, 1 + patches, d)
    add(f"{eye}.patch_embed.proj.weight", d, 3, int(vision.patch_size), int(vision.patch_size))
    add(f"{eye}.patch_embed.proj.bias", d)
    for i in range(vision.num_hidden_layers):
        block = f"{eye}.blocks.{i}"
        norm(f"{block}.norm1", d)
        linear(f"{block}.attn.qkv", d, 3 * d)
        linear(f"{block}.attn.proj", d, d)
        norm(f"{block}.norm2", d)
        linear(f"{block}.mlp.fc1", d, vision.intermediate_size)
        linear(f"{block}.mlp.fc2", vision.intermediate_size, d)
    norm(f"{eye}.norm", d)

    reader = "blip.text_encoder"
    weights[f"{reader}.embeddings.position_ids"] = torch.arange(text.max_position_embeddings)[None]
    add(f"{reader}.embeddings.word_embeddings.weight", text.vocab_size, h)
    add(f"{reader}.embeddings.position_embeddings.weight", text.max_position_embeddings, h)
    norm(f"{reader}.embeddings.LayerNorm", h)
    for i in range(text.num_hidden_layers):
        layer = f"{reader}.encoder.layer.{i}"
        for attention, width in (("attention", h), ("crossattention", d)):
            linear(f"{layer}.{attention}.self.query", h, h)
            linear(f"{layer}.{attention}.self.key", width, h)
            linear(f"{layer}.{attention}.self.value", width, h)
            linear(f"{layer}.{attention}.output.dense", h, h)
            norm(f"{layer}.{attention}.output.LayerNorm", h)
        linear(f"{layer}.intermediate.dense", h, text.intermediate_size)
        linear(f"{layer}.output.dense", text.intermediate_size, h)
        norm(f"{layer}.output.LayerNorm", h)

    # BLIP's contrastive heads, which the reward has no use for.
    linear("blip.vision_proj", d, 256)
    linear("blip.text_proj", h, 256)
    widths = (h, 1024, 128, 64, 16, 1)
    for index, inputs, outputs in zip((0, 2, 4, 6, 7), widths, widths[1:]):
        linear(f"mlp.layers.{index}", inputs, outputs)
    return weights


def words(folder: Path) -> BertTokenizer:
    return BertTokenizer.from_pretrained(folder)
