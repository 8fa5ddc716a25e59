"""A folder of Stable Diffusion 2.1-base at its true size with random weights.

For running the whole pipeline at full scale without the download.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from iterations.sd21 import PARAMETERS, make_text_encoder, make_unet, make_vae
from tests.tiny_diffusers import write_scheduler, write_tokenizer


def write_sd21_folder(path: Path, dtype: torch.dtype, *, seed: int = 0) -> Path:
    """Write the folder (2.6 GB in half precision, twice that in single) and return its path.

    The tokenizer is a byte-level one made on the fly: what a prompt says is lost on random weights anyway.
    """
    torch.manual_seed(seed)
    write_tokenizer(path / "tokenizer")
    write_scheduler(path / "scheduler", "epsilon")
    # One network in memory at a time.
    for name, make in (("unet", make_unet), ("vae", make_vae), ("text_encoder", make_text_encoder)):
        network: nn.Module = make()
        count = sum(parameter.numel() for parameter in network.parameters())
        assert count == PARAMETERS[name], f"{name} has {count} parameters, not {PARAMETERS[name]}"
        # diffusers' own `to` warns about modules that these networks do not have.
        nn.Module.to(network, dtype).save_pretrained(path / name)  # type: ignore[operator]
    return path
