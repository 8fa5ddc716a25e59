"""Rasterizers of the benchmark, one module for each kind."""

from __future__ import annotations

from functools import partial

from diff_gaussian_rasterization import cpu

from . import gsplat_cpu, gsplat_cuda, inria, ours
from .peer import Peer, version_of

OWN = version_of("diff-gaussian-rasterization")
GSPLAT = version_of("gsplat")
# Measured with footprints of 32 pixels; the twin keeps every pixel of the tiles that a Gaussian touches.
TWIN_BYTES = 850.0
GSPLAT_BYTES = 210.0


def peers(device: str, inria_folders: list[str]) -> list[Peer]:
    """Peers for "cpu" or "cuda", ours first; one that is not installed reports that when it is to run."""
    twin = Peer("our twin in torch", OWN, partial(ours.prepare, backend="reference"), TWIN_BYTES)
    if device == "cpu":
        return [
            *(
                Peer(f"ours ({level})", OWN, partial(ours.prepare_level, level=level))
                for level in reversed(cpu.levels())
            ),
            twin,
            Peer("gsplat in torch", GSPLAT, partial(gsplat_cpu.prepare, given=False), GSPLAT_BYTES),
            Peer(
                "gsplat in torch, pairs given", GSPLAT, partial(gsplat_cpu.prepare, given=True), GSPLAT_BYTES
            ),
        ]
    return [
        Peer("ours", OWN, partial(ours.prepare, backend="cuda")),
        Peer("ours, CUDA graph", OWN, partial(ours.prepare, backend="cuda"), replayed=True),
        twin,
        Peer("gsplat", GSPLAT, partial(gsplat_cuda.prepare, packed=False)),
        Peer("gsplat, packed", GSPLAT, partial(gsplat_cuda.prepare, packed=True)),
        *(
            Peer(f"Inria ({each.parent.name})", inria.version(each), partial(inria.prepare, package=each))
            for each in inria.packages(inria_folders)
        ),
    ]
