"""Random LoRA weights for any Stable Diffusion."""

from __future__ import annotations

import torch
from torch import Tensor

from guidance.prior import StableDiffusionPrior

TARGETS = {
    "unet": ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "ff.net.2"),
    "text_encoder": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
}


def lora(prior: StableDiffusionPrior, rank: int = 2) -> dict[str, Tensor]:
    """LoRA of every projection, by the names of their networks, in PEFT's layout."""
    rng = torch.Generator().manual_seed(0)
    low = {}
    for prefix, endings in TARGETS.items():
        for name, module in getattr(prior, prefix).named_modules():
            if name.endswith(endings):
                # Of convolutions, which Stable Diffusion 1 has before its attention, all are of one pixel.
                rows, columns, *pixel = module.weight.shape
                down = torch.randn(rank, columns, *pixel, generator=rng) / columns**0.5
                low[f"{prefix}.{name}.lora_A.weight"] = down
                low[f"{prefix}.{name}.lora_B.weight"] = torch.randn(rows, rank, *pixel, generator=rng)
    return low


def changes(low: dict[str, Tensor]) -> dict[str, Tensor]:
    """Change that a LoRA in PEFT's layout makes to each weight, "network.module.weight"."""
    return {
        name.replace("lora_A.", ""): _product(low[name.replace("lora_A", "lora_B")], down)
        for name, down in low.items()
        if ".lora_A." in name
    }


def kohya(low: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A LoRA in kohya's layout, with ranks and alphas for each module as resized files have them, and its changes."""
    file, added = {}, {}
    for index, name in enumerate(name for name in low if ".lora_A." in name):
        down, up = low[name], low[name.replace("lora_A", "lora_B")]
        rank, alpha = 1 + index % down.shape[0], (0.5, 1.0, 4.0)[index % 3]
        down, up = down[:rank].clone(), up[:, :rank].clone()
        prefix, module = name.removesuffix(".lora_A.weight").split(".", 1)
        # Older text encoders had this part.
        stem = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}[prefix] + module.replace(
            ".", "_"
        )
        file |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
        file[f"{stem}.alpha"] = torch.tensor(alpha)
        added[f"{prefix}.{module}.weight"] = alpha / rank * _product(up, down)
    return file, added


def _product(up: Tensor, down: Tensor) -> Tensor:
    return (up.flatten(1) @ down.flatten(1)).view(up.shape[0], *down.shape[1:])
