"""Random numbers that depend on a run's seed, on their use, iteration and view, and on nothing else.

There is no state to keep: a run that resumes, takes its views one by one or shares them among processes draws
what the whole run would have drawn.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Use = Literal["init", "cameras", "augment", "background", "timesteps", "densify", "controlnet", "init_fit"]
"""Uses of random numbers; each has its own, so that no use shifts another's."""


@dataclass(frozen=True)
class Draws:
    """Generators on the host, seeded from `seed` and names."""

    seed: int

    def at(self, use: Use, *place: int) -> torch.Generator:
        """Make a new generator for `use`, at an iteration or another `place`."""
        name = "/".join(map(str, (use, *place)))
        return torch.Generator().manual_seed(derive_seed(self.seed, name))

    def of_views(self, use: Use, step: int, views: Iterable[int]) -> list[torch.Generator]:
        """Make a generator for each of an iteration's `views`."""
        return [self.at(use, step, view) for view in views]

    def of_sets(self, use: Use, step: int, views: range, views_per_set: int) -> list[torch.Generator]:
        """Make a generator for each set of an iteration's `views`, which are whole sets."""
        return self.of_views(use, step, range(views.start // views_per_set, views.stop // views_per_set))


def derive_seed(seed: int, name: str) -> int:
    """Derive a seed in [0, 2^63) from `seed` and `name` only: through SHA-256, not from the process or the platform."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def uniform(rngs: Sequence[torch.Generator]) -> Tensor:
    """Draw [V] float64 in [0, 1), one from each of V generators."""
    return torch.stack([torch.rand((), generator=rng, dtype=torch.float64) for rng in rngs])


def integers(low: int, high: int, rngs: Sequence[torch.Generator]) -> Tensor:
    """Draw [V] int64 uniform on low..high, both included, one from each of V generators."""
    return torch.stack([torch.randint(low, high + 1, (), generator=rng) for rng in rngs])


def normal(shape: Sequence[int], rngs: Sequence[torch.Generator]) -> Tensor:
    """Draw [V, *shape] float32, standard normal, from each of V generators."""
    return torch.stack([torch.randn(tuple(shape), generator=rng) for rng in rngs])


def normal_like(tensor: Tensor, rng: torch.Generator) -> Tensor:
    """Make standard normal numbers shaped like `tensor` on its device: a million of them need not cross over
    from the host.

    Only a seed comes from `rng`. Number i is Box and Muller's of the hash of i, the mixing function of
    SplitMix64 (Steele et al., 2014), whose integers are the same on every device.
    """
    seed = int(torch.randint(2**62, (), generator=rng))
    bits = _mix(torch.arange(tensor.numel(), device=tensor.device), seed)
    # In (0, 1), from the upper and the lower half of the bits.
    radius, turn = (half * 2.0**-32 + 2.0**-33 for half in (_shifted(bits, 32), bits & 0xFFFFFFFF))
    numbers = torch.sqrt(-2.0 * torch.log(radius)) * torch.cos(2.0 * math.pi * turn)
    return numbers.reshape(tensor.shape).to(tensor.dtype)


def _mix(counter: Tensor, seed: int) -> Tensor:
    """Return SplitMix64 of counter + seed, int64; multiplication wraps around."""
    step = _signed(0x9E3779B97F4A7C15)
    z = counter * step + (step + seed)
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Shift z right by bits, without the sign's copies."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    """Return the int64 with the bits of an unsigned word."""
    return word - (1 << 64)
