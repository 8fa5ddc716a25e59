"""A CLIP folder in transformers' layout with few, random weights, and CLIP in plain functions to compare it with."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
TOKENS, WIDTH, HEADS, PROJECTION, IMAGE, PATCH = 16, 12, 2, 8, 32, 8


def write_clip(folder: Path, *, projection: int = PROJECTION, seed: int = 0) -> CLIPModel:
    """Write both towers and a tokenizer without merges, one token for each letter."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(letter + "</w>" for letter in letters), START, END]
    tokenizer = CLIPTokenizer(
        vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], model_max_length=TOKENS
    )
    tokenizer.save_pretrained(folder)
    sizes = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "projection_dim": projection,
    }
    ends = {"bos_token_id": len(pieces) - 2, "eos_token_id": len(pieces) - 1, "pad_token_id": len(pieces) - 1}
    config = CLIPConfig(
        text_config={**sizes, **ends, "vocab_size": len(pieces), "max_position_embeddings": TOKENS},
        vision_config={**sizes, "image_size": IMAGE, "patch_size": PATCH},
        projection_dim=projection,
    )
    rng = torch.Generator().manual_seed(seed)
    model = CLIPModel(config).eval().requires_grad_(False)
    for parameter in model.parameters():  # none at a value that would hide it, such as a bias of 0
        noise = torch.randn(parameter.shape, generator=rng)
        parameter.copy_(noise * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 1 + noise / 3)
    model.save_pretrained(folder)
    return model


def _linear(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _norm(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    scaled = centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def _layers(state: dict[str, Tensor], name: str, x: Tensor, *, causal: bool) -> Tensor:
    """Run the transformer's layers on tokens [L, W]: x·sigmoid(1.702 x) is CLIP's own gelu."""
    for i in range(2):
        layer = f"{name}.encoder.layers.{i}"
        y = _norm(state, f"{layer}.layer_norm1", x)
        q, k, v = (
            _linear(state, f"{layer}.self_attn.{p}_proj", y).unflatten(-1, (HEADS, -1)).transpose(0, 1)
            for p in "qkv"
        )
        scores = q @ k.mT / (WIDTH // HEADS) ** 0.5
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
        x = x + _linear(
            state, f"{layer}.self_attn.out_proj", (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)
        )
        hidden = _linear(state, f"{layer}.mlp.fc1", _norm(state, f"{layer}.layer_norm2", x))
        x = x + _linear(state, f"{layer}.mlp.fc2", hidden * torch.sigmoid(1.702 * hidden))
    return x


def reference_text_vector(model: CLIPModel, tokens: list[int]) -> Tensor:
    """Vector [D] of a text's tokens, the last of which is the end."""
    state = dict(model.state_dict())
    embedded = state["text_model.embeddings.token_embedding.weight"][tokens]
    x = embedded + state["text_model.embeddings.position_embedding.weight"][: len(tokens)]
    end = _norm(state, "text_model.final_layer_norm", _layers(state, "text_model", x, causal=True))[-1]
    return F.normalize(state["text_projection.weight"] @ end, dim=0)


def reference_image(model: CLIPModel, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Vector [D] and grid [L, W], before the last norm, of pixels [3, S, S]."""
    state = dict(model.state_dict())
    patches = (
        pixels.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH).permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)
    )
    embedded = patches @ state["vision_model.embeddings.patch_embedding.weight"].flatten(1).T
    x = torch.cat([state["vision_model.embeddings.class_embedding"][None], embedded])
    x = x + state["vision_model.embeddings.position_embedding.weight"]
    x = _layers(state, "vision_model", _norm(state, "vision_model.pre_layrnorm", x), causal=False)
    pooled = _norm(state, "vision_model.post_layernorm", x[0])
    return F.normalize(state["visual_projection.weight"] @ pooled, dim=0), x[1:]
