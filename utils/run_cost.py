"""Cost of a run, as the file that ends it: a run folder that has it is finished."""

from __future__ import annotations

import json
import os
from dataclasses import MISSING, asdict, dataclass, fields
from typing import get_type_hints

from utils.files import write_text


@dataclass(frozen=True)
class RunCost:
    """Time and memory of a run.

    Attributes:
        seconds: of the loop.
        peak_memory: the most that was held, in GB (1e9 bytes), on the accelerator or else by the process.
        gaussians: of the asset.
        evaluations: of the U-Net, per view and iteration.
        machine: the hardware that it ran on.
        core_seconds: of this machine's processors in the loop, by all threads, which other programs hardly change; None in files
            of earlier versions.
    """

    seconds: float
    peak_memory: float
    gaussians: int
    evaluations: float
    machine: str
    core_seconds: float | None = None

    def write(self, path: str | os.PathLike[str]) -> None:
        write_text(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> RunCost:
        """Read the file that `write` wrote.

        Raises OSError if there is no such file, ValueError in one sentence if it is none of `write`'s.
        """
        with open(path, encoding="utf-8") as file:
            content = file.read()
        try:
            found = json.loads(content)
            kinds = {**get_type_hints(cls), "core_seconds": float}
            given = [f.name for f in fields(cls) if f.default is MISSING or found.get(f.name) is not None]
            return cls(**{name: kinds[name](found[name]) for name in given})
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ValueError(f"{path} is not what a finished run writes: repeat the run.") from None
