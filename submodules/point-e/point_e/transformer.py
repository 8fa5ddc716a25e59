"""Point transformer (Nichol et al., 2022, Sec. 3.3): a plain transformer whose tokens are points.

Its parameters have the names and shapes of OpenAI's checkpoints.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from point_e.models import StageConfig

CHANNELS = 6
"""Channels of a point: x, y, z, red, green, blue."""


class MLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x)))


class MultiheadAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.c_qkv = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        # The projection holds query, key and value of the first head, then those of the second, and so on.
        q, k, v = self.c_qkv(x).unflatten(-1, (self.heads, -1)).transpose(1, 2).chunk(3, dim=-1)
        return self.c_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class ResidualAttentionBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = MultiheadAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = MLP(width)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Backbone(nn.Module):
    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(ResidualAttentionBlock(width, heads) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.resblocks:
            x = block(x)
        return x


def timestep_embedding(t: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """Sinusoids [B, width] of timesteps [B]: cosines, then sines, of periods from 2π to 10,000 · 2π."""
    half = width // 2
    # Half precision would lose the phase of late timesteps.
    precise = torch.promote_types(dtype, torch.float32)
    frequencies = torch.exp(-math.log(10_000) / half * torch.arange(half, dtype=precise, device=t.device))
    angles = t[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1).to(dtype)


class PointTransformer(nn.Module):
    """Network that predicts the noise in N points from their CLIP embedding, and, as an upsampler, from M
    coarser points.
    """

    channel_scales: Tensor
    channel_biases: Tensor

    def __init__(self, stage: StageConfig) -> None:
        super().__init__()
        config = self.config = stage.model
        self.time_embed = MLP(config.width)
        self.ln_pre = nn.LayerNorm(config.width)
        self.backbone = Backbone(config.width, config.layers, config.heads)
        self.ln_post = nn.LayerNorm(config.width)
        self.input_proj = nn.Linear(CHANNELS, config.width)
        # The noise, then the variance of each channel, which only ancestral sampling would need.
        self.output_proj = nn.Linear(config.width, 2 * CHANNELS)
        if config.clip == "vector":
            self.clip_embed: nn.Module = nn.Linear(config.clip_width, config.width)
        elif config.clip == "grid":
            self.clip_embed = nn.Sequential(
                nn.LayerNorm(config.clip_width), nn.Linear(config.clip_width, config.width)
            )
        if config.cond_ctx:
            self.cond_point_proj = nn.Linear(CHANNELS, config.width)
            self.register_buffer("channel_scales", torch.tensor(stage.channel_scales))
            self.register_buffer("channel_biases", torch.tensor(stage.channel_biases))

    def forward(
        self, x: Tensor, t: Tensor, clip: Tensor | None = None, coarse: Tensor | None = None
    ) -> Tensor:
        """Predict the noise eps [B, N, 6].

        Args:
            x: noisy points [B, N, 6], in the model's scale, any N.
            t: timesteps [B].
            clip: a CLIP vector [B, D] of unit length, or a grid of image tokens [B, L, D]; zeros for none.
            coarse: the coarser cloud [B, M, 6], in its own units: positions, and colours from 0 to 255.
        """
        config = self.config
        time = self.time_embed(timestep_embedding(t, config.width, x.dtype))[:, None]
        context = [time]
        if config.clip == "vector":
            assert clip is not None
            # Unit vectors are brought to unit variance.
            context = [self.clip_embed(math.sqrt(config.clip_width) * clip)[:, None], time]
        elif config.clip == "grid":
            assert clip is not None
            context.append(self.clip_embed(clip))
        if config.cond_ctx:
            assert coarse is not None
            context.append(self.cond_point_proj(coarse * self.channel_scales + self.channel_biases))
        tokens = torch.cat([*context, self.input_proj(x)], dim=1)
        tokens = self.ln_post(self.backbone(self.ln_pre(tokens)))
        return self.output_proj(tokens[:, -x.shape[1] :])[..., :CHANNELS]
