"""LoRA weights for any Stable Diffusion, random ones."""

from __future__ import annotations

import torch

from guidance import StableDiffusionPrior


def lora(prior: StableDiffusionPrior, rank: int = 2) -> dict[str, torch.Tensor]:
    """Of every query projection, by the names of their networks."""
    rng = torch.Generator().manual_seed(0)
    low = {}
    for prefix, network, ending in (
        ("unet", prior.unet, "to_q"),
        ("text_encoder", prior.text_encoder, "q_proj"),
    ):
        for name, module in network.named_modules():
            if name.endswith(ending):
                rows, columns = module.weight.shape
                low[f"{prefix}.{name}.lora_A.weight"] = 0.3 * torch.randn(rank, columns, generator=rng)
                low[f"{prefix}.{name}.lora_B.weight"] = 0.3 * torch.randn(rows, rank, generator=rng)
    return low
