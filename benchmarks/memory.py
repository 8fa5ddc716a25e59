"""Compute the memory that an iteration takes in every way of going through its views, and check it.

python benchmarks/memory.py [--guidance sctd] [--prompting CFG] [--views 1 4 8] [--size 512] python
benchmarks/memory.py --check --size 256 --views 1 2

The table is of Stable Diffusion 2.1-base in half precision, from training/memory_plan.py, which train.py
chooses by: the guidance's tensors, forward and backward, gone through on the meta device; the networks'
weights; and what the plan needs free besides the weights, with the rasterizer's share and the reserve. Then,
what it chooses on cards of several sizes.

--check does the guidance's part for real, in float32 on this machine's processor and each in a process of its
own, and compares the growth of its resident memory with what is computed for the same.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import config as configuration
import guidance
from config import Config
from guidance import METHODS
from guidance.prior import LatentPrior
from hardware import hardware
from iteration import PRESETS, PROMPTINGS, line
from iterations.sd21 import META, RandomPrior
from rasterizers.measure import MIB, PeakMemory
from training.memory_plan import MemoryPlan, guidance_bytes, needed_bytes, plans
from utils.device import HOST
from utils.rng import Draws

CARDS = (8, 12, 16, 24, 48, 80)
"""GB of memory."""
CONTEXT = 0.6e9
"""Bytes that a GPU's driver and libraries take, assumed."""


def config_of(method: str, prompting: str, views: int, size: int) -> Config:
    flags = {"opt": PRESETS / "bagel.yaml", "guidance_type": method, "perpneg": PROMPTINGS[prompting]}
    flags |= {"C_batch_size": views, "image_w": size, "image_h": size}
    return configuration.load([part for name, value in flags.items() for part in (f"--{name}", str(value))])


def weights_of(prior: LatentPrior) -> int:
    """Bytes of the U-Net and the autoencoder: the text encoder is freed before the first iteration."""
    networks = (prior.network, prior.vae)
    return sum(p.numel() * p.element_size() for network in networks for p in network.parameters())


def computed(arguments: argparse.Namespace, method: str, prompting: str) -> Iterator[str]:
    """The lines of one guidance: of every plan, and of what is chosen."""
    prior = RandomPrior(META, torch.float16)
    weights = weights_of(prior)
    chosen: dict[int, list[str]] = {card: [] for card in CARDS}
    for views in arguments.views:
        config = config_of(method, prompting, views, arguments.size)
        needs = {plan: needed_bytes(config, prior, plan) for plan in plans(views)}
        for plan, needed in needs.items():
            inside = guidance_bytes(config, prior, plan)
            gigabytes = [f"{size / 1e9:.1f}" for size in (inside, weights, needed, weights + needed)]
            yield line([method, prompting, str(views), str(plan), *gigabytes, ""])
        for card, said in chosen.items():
            free = card * 1e9 - CONTEXT - weights
            fits = next((plan for plan, needed in needs.items() if needed <= free), plan)
            said.append(f"{fits.views_at_once}{', encoded singly' if fits.encode_singly else ''}")
    yield ""
    yield line(["card, GB", *(f"{views} view{'s' if views > 1 else ''}" for views in arguments.views)])
    yield line("---" for _ in range(1 + len(arguments.views)))
    for card, said in chosen.items():
        yield line([str(card), *said])


def resident_growth(config: Config, plan: MemoryPlan, size: int) -> float:
    """Bytes by which this process grows at most when the guidance goes through a part of an iteration for real."""
    torch.manual_seed(0)
    prior = RandomPrior(HOST, torch.float32)
    prior.image_size = size
    guide = guidance.build(config, prior)
    conditioning = guidance.embed_prompts(config, prior).at(
        torch.full((plan.views_at_once,), 45.0), torch.full((plan.views_at_once,), 90.0)
    )
    images = torch.rand(plan.views_at_once, 3, size, size, requires_grad=True)
    memory = PeakMemory(HOST.type)
    rngs = Draws(0).of_views("timesteps", 0, range(plan.views_at_once))
    guide(images, conditioning, 0, rngs).loss.backward()
    grown = memory.peak()
    assert grown is not None, "this system does not tell how much memory a process held"
    return grown * MIB


def checked(arguments: argparse.Namespace, method: str, prompting: str) -> Iterator[str]:
    """Lines of what is computed for float32 on this machine, beside what was measured."""
    prior = RandomPrior(META, torch.float32)
    prior.image_size = arguments.size
    for views in arguments.views:
        config, plan = (
            config_of(method, prompting, views, arguments.size),
            MemoryPlan(views, encode_singly=False),
        )
        foretold = guidance_bytes(config, prior, plan)
        with multiprocessing.get_context("spawn").Pool(1) as process:
            grown = process.apply(resident_growth, (config, plan, arguments.size))
        gigabytes = (f"{foretold / 1e9:.2f}", f"{grown / 1e9:.2f}")
        yield line([method, prompting, str(views), *gigabytes, f"{foretold / grown - 1:+.0%}"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--guidance", nargs="+", choices=list(METHODS), default=["sctd"])
    parser.add_argument("--prompting", nargs="+", choices=list(PROMPTINGS), default=["CFG"])
    parser.add_argument("--views", type=int, nargs="+", default=[1, 4, 8], help="per iteration: C_batch_size")
    parser.add_argument("--size", type=int, default=512, help="image side in pixels")
    parser.add_argument("--check", action="store_true", help="measure on this machine as well")
    arguments = parser.parse_args()
    where = hardware(HOST.type, torch.get_num_threads())
    print(", ".join(f"{key} {value}" for key, value in where.items()) + "\n")
    columns = ["guidance", "prompting", "views"]
    if arguments.check:
        columns += ["computed, GB", "measured, GB", "off by"]
    else:
        columns += ["plan", "guidance, GB", "weights, GB", "to be free, GB", "in all, GB", "measured, GB"]
    for method, prompting in product(arguments.guidance, arguments.prompting):
        print(line(columns))
        print(line("---" for _ in columns))
        for text in (checked if arguments.check else computed)(arguments, method, prompting):
            print(text, flush=True)


if __name__ == "__main__":
    main()
