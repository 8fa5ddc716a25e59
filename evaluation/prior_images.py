"""Images that the prior itself makes of prompts: DDIM samples, kept as files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from guidance import Conditioning, Denoiser, view_weights
from guidance.prior import LatentPrior
from guidance.prompts import VIEW_WORDS
from guidance.schedule import CLEAN
from guidance.solver import step
from utils.files import write_text
from utils.media import write_png
from utils.rng import derive_seed
from utils.run_folder import slug

STEPS = 50
AT_ONCE = 8


@torch.no_grad()
def samples(
    prior: LatentPrior,
    prompts: Sequence[str],
    seeds: Sequence[int],
    scale: float,
    azimuth: Tensor | None = None,
) -> Tensor:
    """Images [B, 3, H, W] float32 in [0, 1] of B prompts: DDIM (eta = 0) with 50 steps and guidance scale
    `scale`.

    Each is made from the noise of its own seed, whatever else is in the batch. azimuth [B], degrees, on the
    host: the images are seen from there, by the view words of the training loop; None takes the prompts as
    they are.
    """
    conditioning = _conditioning(prior, prompts, azimuth)
    while True:
        images = _sampled(prior, conditioning, seeds, scale)
        if not prior.widen_overflowed():
            return images


def _sampled(prior: LatentPrior, conditioning: Conditioning, seeds: Sequence[int], scale: float) -> Tensor:
    """The images, made in the precision that the networks have now."""
    schedule, denoiser = prior.schedule, Denoiser(prior)
    z = torch.stack(
        [torch.randn(prior.latents, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )
    z = z.to(prior.device)
    # As Stable Diffusion's own sampler has it ("leading" spacing from the offset, which is 1): 981, 961, ..., 1.
    spacing, first = schedule.num_timesteps // STEPS, schedule.steps_offset
    times = [*reversed(range(first, first + STEPS * spacing, spacing)), CLEAN]
    for start, end in pairwise(times):
        t, u = torch.full((len(z),), start), torch.full((len(z),), end)
        z = step(z, denoiser.guided(z, t, conditioning, scale).prediction, t, u, schedule)
    return prior.decode(z)


def _conditioning(prior: LatentPrior, prompts: Sequence[str], azimuth: Tensor | None) -> Conditioning:
    seen = [prompt + words for prompt in prompts for words in (VIEW_WORDS if azimuth is not None else ("",))]
    embedded = prior.embed([*seen, ""])
    views, empty = embedded.rows(torch.arange(len(seen))), embedded[len(seen)].expand(len(prompts))
    if azimuth is None:
        positive = views
    else:
        weights = torch.block_diag(*view_weights(azimuth)[:, None])
        positive = views.mixed(weights)
    return Conditioning(positive, empty, empty, negative_is_unconditional=True)


@dataclass(frozen=True)
class PriorImages:
    """Images of a prior, in turn of each prompt, that do not depend on how many there are or are made at a time.

    prior: its name, for people; weights: what distinguishes it from others of that name.
    """

    prior: str
    weights: str
    prompts: tuple[str, ...]
    scale: float
    seed: int = 0

    def folder(self, root: Path) -> Path:
        """The folder where these images are kept under `root`."""
        digest = hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:12]
        return root / f"{slug(self.prior)}-{digest}"

    def missing(self, root: Path, count: int) -> list[int]:
        """Indices of the first `count` images that are not there yet."""
        folder = self.folder(root)
        return [index for index in range(count) if not (folder / file_name(index)).exists()]

    def make(self, root: Path, count: int, load_prior: Callable[[], LatentPrior]) -> list[Path]:
        """The files of the first `count`, in their order: those that are missing are made, each whole or not there.

        load_prior: called only if there is something to do.
        """
        folder, missing = self.folder(root), self.missing(root, count)
        if missing:
            prior = load_prior()
            # For people: the folder's name means little.
            write_text(folder / "images.json", json.dumps(asdict(self), indent=1))
            with tqdm(
                total=count, initial=count - len(missing), desc="images of the prior", unit="image"
            ) as bar:
                for start in range(0, len(missing), AT_ONCE):
                    some = missing[start : start + AT_ONCE]
                    prompts = [self.prompts[index % len(self.prompts)] for index in some]
                    seeds = [derive_seed(self.seed, f"prior image {index}") for index in some]
                    for index, image in zip(some, samples(prior, prompts, seeds, self.scale)):
                        write_png(folder / file_name(index), image)
                    bar.update(len(some))
        return [folder / file_name(index) for index in range(count)]


def file_name(index: int) -> str:
    return f"{index:06d}.png"
