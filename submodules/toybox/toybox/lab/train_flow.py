"""Train the flow's transformer, on the latents and prompts that the U-Net is trained on."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import ZImageTransformer2DModel
from torch import Tensor

from toybox.lab.fit import Schedule, fit
from toybox.lab.models import build_transformer
from toybox.lab.training_views import TrainingViews

STEPS, BATCH = 5000, 48


def train_flow(views: TrainingViews, folder: Path, seed: int) -> ZImageTransformer2DModel:
    """Train the transformer: z_sigma = (1 - sigma) z_0 + sigma eps, of which it learns z_0 - eps.

    Noise levels are logistic-normal, as in Stable Diffusion 3, and stratified. As in Z-Image, the network is told
    1 - sigma and answers with the velocity turned round.

    Muon trains the blocks' matrices, and AdamW the rest. After 200 steps of a schedule of 300 the loss on 384 of the views was
    0.352 with steps about as large as these; it was 0.450 with AdamW at 1e-3 for all, whose other rates were not tried.
    Compiled blocks took 1.0 s forth and back, in place of 1.3, on two cores of an EPYC (Zen 3).
    """
    torch.manual_seed(seed)
    transformer: ZImageTransformer2DModel = build_transformer()
    blocks = [*transformer.layers, *transformer.noise_refiner, *transformer.context_refiner]
    matrices = [
        parameter
        for block in blocks
        for name, parameter in block.named_parameters()
        if parameter.dim() == 2 and "adaLN" not in name
    ]
    for block in blocks:
        block.compile()

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        index = torch.randint(len(views), (BATCH,), generator=rng)
        strata = (torch.arange(BATCH) + torch.rand(BATCH, generator=rng)) / BATCH
        sigma = torch.special.ndtri(strata.clamp(1e-4, 1 - 1e-4)).sigmoid()
        z0 = views.latents[index]
        noise = torch.randn(z0.shape, generator=rng)
        z = torch.lerp(z0, noise, sigma[:, None, None, None])
        text, lengths = views.conditions(index, rng)
        texts = [row[:length] for row, length in zip(text, lengths.tolist())]
        found = transformer([*z.unsqueeze(2)], 1 - sigma, texts, return_dict=False)[0]
        error = (torch.stack([*found]).squeeze(2) - (z0 - noise)).square().mean(dim=(1, 2, 3))
        return error.mean(), {"late": error[sigma > 0.5].mean().detach()}

    fit("flow", transformer, loss, Schedule(STEPS, lr=2e-3), folder, seed, muon=matrices)
    return transformer
