"""Count what each family of priors costs at its true size, without weights: python benchmarks/priors.py

Prints, for each prior, its parameters, the arithmetic of an evaluation and of the autoencoder, and what SCTD needs of a
card's memory for 4 views, all on the meta device. Configurations are the published ones, in half precision.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    ZImageTransformer2DModel,
)

sys.path.insert(0, str(Path(__file__).parents[1]))

from guidance import Condition
from guidance.prior import LatentPrior, MVDream
from guidance.prior.families import FAMILIES
from guidance.prior.multiview_unet import CAMERA_SETTINGS
from guidance.prior.parametrization import Parametrization
from guidance.schedule import Schedule
from iterations.sd21 import META, RandomPrior, make_text_encoder, make_unet, make_vae
from iterations.work import work_of
from memory import config_of, weights_of
from training.memory_plan import MemoryPlan, needed_bytes
from utils.device import HOST

VIEWS = 4


@dataclass(frozen=True)
class TrueSize:
    """A published model.

    Attributes:
        pipeline: its pipeline's class.
        size: side of the images, in pixels.
        shrinks: by what factor its latents are smaller.
        vae, network: their makers.
        text: the shape of a text; more: those of what else a network is told, by name.
    """

    pipeline: str
    size: int
    shrinks: int
    vae: Callable[[], Any]
    network: Callable[[], Any]
    text: tuple[int, int]
    more: dict[str, tuple[int, ...]]
    flow: bool = True


def sdxl_unet() -> Any:
    return make_unet(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )


def vae_16() -> Any:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=16,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=1.5305,
        shift_factor=0.0609,
    )


def dc_ae() -> Any:
    blocks = (*("ResBlock",) * 3, *("EfficientViTBlock",) * 3)
    return AutoencoderDC(
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        decoder_qkv_multiscales=((), (), (), (5,), (5,), (5,)),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )


def sd35_medium() -> Any:
    return SD3Transformer2DModel(
        sample_size=128,
        num_layers=24,
        num_attention_heads=24,
        attention_head_dim=64,
        caption_projection_dim=1536,
        pos_embed_max_size=384,
        dual_attention_layers=tuple(range(13)),
        qk_norm="rms_norm",
    )


def sana_06() -> Any:
    return SanaTransformer2DModel(
        num_layers=28,
        num_attention_heads=36,
        num_cross_attention_heads=16,
        cross_attention_head_dim=72,
        cross_attention_dim=1152,
        sample_size=16,
    )


TRUE_SIZES = {
    "SDXL": TrueSize(
        "StableDiffusionXLPipeline",
        1024,
        8,
        make_vae,
        sdxl_unet,
        (77, 2048),
        {"pooled": (1280,), "sizes": (6,)},
        flow=False,
    ),
    "SD 3.5 medium": TrueSize(
        "StableDiffusion3Pipeline", 512, 8, vae_16, sd35_medium, (333, 4096), {"pooled": (2048,)}
    ),
    "SANA 0.6B": TrueSize("SanaPipeline", 512, 32, dc_ae, sana_06, (300, 2304), {"mask": (300,)}),
    "SANA 1.6B": TrueSize(
        "SanaPipeline",
        512,
        32,
        dc_ae,
        lambda: SanaTransformer2DModel(sample_size=16),
        (300, 2304),
        {"mask": (300,)},
    ),
    "Z-Image": TrueSize(
        "ZImagePipeline", 512, 8, vae_16, ZImageTransformer2DModel, (64, 2560), {"length": ()}
    ),
}


class Blank:
    """Embeddings of which only the shapes are known."""

    def __init__(self, of: TrueSize) -> None:
        parts = {"text": torch.zeros(1, *of.text, device=META)}
        for name, shape in of.more.items():
            if name == "length":
                parts[name] = torch.full((1,), of.text[0], device=HOST)
            else:
                parts[name] = torch.zeros(
                    1, *shape, device=META, dtype=torch.bool if name == "mask" else None
                )
        self._largest = Condition(parts)

    def largest(self) -> Condition:
        return self._largest


def prior_of(of: TrueSize) -> LatentPrior:
    """A prior at its true size on the meta device, in half precision."""
    family = FAMILIES[of.pipeline]
    with META:
        vae, network = of.vae(), of.network()
    vae, network = (torch.nn.Module.to(each, torch.bfloat16) for each in (vae, network))
    schedule = Schedule.flow(3.0) if of.flow else Schedule.diffusion(torch.linspace(0.99, 0.005, 1000), 1)
    predicts = Parametrization("flow" if of.flow else "epsilon", schedule)
    side = of.size // of.shrinks
    channels = int(network.config.in_channels)
    return family(vae, network, predicts, (channels, side, side), {}, Blank(of))  # type: ignore[arg-type]


def mvdream() -> LatentPrior:
    """MVDream at its true size on the meta device, in half precision."""
    with META:
        parts = make_vae(), make_unet(sample_size=32, **CAMERA_SETTINGS), make_text_encoder()
    vae, unet, text_encoder = (torch.nn.Module.to(each, torch.float16) for each in parts)
    schedule = Schedule.diffusion(torch.linspace(0.99, 0.005, 1000), 1)
    tokenizer: Any = None
    return MVDream(vae, unet, text_encoder, tokenizer, Parametrization("epsilon", schedule))


def row(name: str, prior: LatentPrior, views: int = VIEWS) -> dict[str, float]:
    """The figures of a prior by name: 10^9 parameters, TFLOP, and GB."""
    work, config = work_of(prior), config_of("sctd", "CFG", views, prior.image_size)
    weights = weights_of(prior)
    plans = (
        MemoryPlan(views, encode_singly=False),
        MemoryPlan(prior.views_per_set, encode_singly=True),
    )
    needed = [needed_bytes(config, prior, plan) for plan in plans]
    return {
        "network": sum(each.numel() for each in prior.network.parameters()) / 1e9,
        "evaluation": work.unet / 1e12,
        "encode": work.encode / 1e12,
        "back": work.encode_backward / 1e12,
        "weights": weights / 1e9,
        "4 views": (weights + needed[0]) / 1e9,
        "1 view": (weights + needed[1]) / 1e9,
    }


def main() -> None:
    print(
        "| prior | pixels | parameters, 10^9 | TFLOP per evaluation | TFLOP of the encoder, forward and back | weights, GB "
        "| 4 views at a time, GB | one view at a time, GB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    makers: dict[str, Callable[[], LatentPrior]] = {"SD 2.1": lambda: RandomPrior(META, torch.float16)}
    makers["MVDream"] = mvdream
    makers |= {name: lambda of=of: prior_of(of) for name, of in TRUE_SIZES.items()}  # type: ignore[misc]
    for name, make in makers.items():
        prior = make()
        found = row(name, prior)
        cells = [f"{found['network']:.2f}", f"{found['evaluation']:.2f}"]
        cells += [f"{found['encode']:.2f} + {found['back']:.2f}"]
        cells += [f"{found[key]:.1f}" for key in ("weights", "4 views", "1 view")]
        print(f"| {name} | {prior.image_size} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
