"""Named, seeded random generators on the host, one per use, so that no use shifts another's draws."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

NAMES = ("cameras", "augment", "timesteps", "flip", "densify", "init")


class Generators:
    """One torch.Generator for each of NAMES: `Generators(seed)["cameras"]`.

    Each is seeded from (seed, name) through SHA-256, so its draws depend on neither the process, the
    platform nor the other generators. Raises KeyError for another name.
    """

    def __init__(self, seed: int) -> None:
        self._generators = {name: torch.Generator().manual_seed(derive_seed(seed, name)) for name in NAMES}

    def __getitem__(self, name: str) -> torch.Generator:
        if name not in self._generators:
            raise KeyError(f"There is no generator {name!r}; there are {', '.join(NAMES)}.")
        return self._generators[name]

    def state_dict(self) -> dict[str, Tensor]:
        """Each generator's state as a uint8 tensor."""
        return {name: generator.get_state() for name, generator in self._generators.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue exactly where `state` was taken. Raises ValueError if it is of other generators."""
        if set(state) != set(NAMES):
            raise ValueError(f"The generator state holds {sorted(state)}, but it must hold {sorted(NAMES)}.")
        for name, generator in self._generators.items():
            try:
                generator.set_state(state[name])
            except (RuntimeError, TypeError):
                raise ValueError(f"The state of the generator {name!r} is none of torch's.") from None


def derive_seed(seed: int, name: str) -> int:
    """A seed in [0, 2^63) that depends on `seed` and `name` only."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
