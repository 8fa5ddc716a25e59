"""How long torch's own threads look for more work before they sleep: set before torch is imported."""

from __future__ import annotations

import os

SPINS, POLICY = "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"
FEW = "100"
"""Looks before a thread sleeps. GNU's OpenMP takes as many itself where its threads are more than the cores."""


def shorten() -> None:
    """Let torch's threads sleep after microseconds, unless the environment sets how they wait.

    GNU's OpenMP, which torch's wheels for Linux bring, else lets them look 300,000 times. That is 5 to 9 ms on an EPYC (Zen 3)
    after every operation, on cores that the rasterizer's threads or other programs need. Other OpenMP libraries read
    only the second variable.
    """
    if POLICY not in os.environ:
        os.environ.setdefault(SPINS, FEW)
