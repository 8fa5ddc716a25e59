"""Step c: our rasterizer beside every peer that can be imported, all in this process, and its kernels one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import cache, partial
from itertools import combinations, product
from typing import Any

import torch

from hardware import hardware
from iterations.kernels import profiled
from rasterizers import ours, peers
from rasterizers.measure import Case, Job, back, forget, measure_here, psnr
from rasterizers.peer import Images, Peer

from .step import Context, main

SIZE, FOOTPRINT = 512, 32.0
COUNTS, VIEWS = (50_000, 200_000, 1_000_000), (4, 1, 8)
PROFILED = 5
"""Runs that the profile is of."""
TWIN = "twin"
"""Name of the peer that is left out: it takes seconds for each line, and is nobody's choice for a GPU."""


def jobs(context: Context) -> list[Job]:
    """Jobs, from the most usual scene on."""
    size, counts, views = (32, (200, 400), (2, 1)) if context.rehearsal else (SIZE, COUNTS, VIEWS)
    repeats, threads = (2 if context.rehearsal else 30), torch.get_num_threads()
    return [
        Job(v, size, count, FOOTPRINT, context.device, threads, repeats)
        for v, count in product(views, counts)
    ]


def row(peer: Peer, job: Job, case: Callable[[], Case]) -> dict[str, Any]:
    return asdict(measure_here(peer, job, case()))


def agreement(found: list[Peer], case: Callable[[], Case]) -> dict[str, float | str]:
    """PSNR in dB of the first scene's rgb between any two peers, by both names; or the reason why there is none."""
    shown: dict[str, Images] = {}
    pairs: dict[str, float | str] = {}
    for peer in found:
        try:
            shown[peer.name] = peer.prepare(case().scenes[0])()
        except Exception as error:  # foreign packages raise whatever they like
            pairs[peer.name] = type(error).__name__
    for one, other in combinations(shown, 2):
        pairs[f"{one} | {other}"] = round(psnr(shown[one][0], shown[other][0]), 1)
    return pairs


def kernels(case: Callable[[], Case], device: str) -> dict[str, Any]:
    """Profile our kernels, forward and backward."""
    scene = case().scenes[0]
    render = ours.prepare(scene, device)

    def run() -> None:
        forget(scene)
        back(scene, render)

    return asdict(profiled(run, torch.device(device), PROFILED))


def name_of(job: Job) -> str:
    return f"{job.views} × {job.size}², {job.count:,}"


def run(context: Context) -> None:
    records = context.records
    records.once("hardware", lambda: hardware(context.device, torch.get_num_threads()))
    found = [peer for peer in peers(context.device, []) if TWIN not in peer.name]
    records.skip("our twin in torch", "it takes seconds for each line, and nobody would use it on a GPU")
    for job in (wanted := jobs(context)):
        case = cache(partial(Case.of, job))  # made when the first measurement needs it
        for peer in found:
            records.once(f"{name_of(job)}: {peer.name}", partial(row, peer, job, case))
        if job.views == wanted[0].views:
            records.once(f"kernels: {name_of(job)}", partial(kernels, case, context.device))
            # A graph's replay draws the same picture.
            compared = [peer for peer in found if not peer.replayed]
            records.once(f"agreement: {name_of(job)}", partial(agreement, compared, case))


if __name__ == "__main__":
    main(run)
