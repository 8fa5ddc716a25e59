"""Run train.py and write down when its parts begin and end: python -m gpu_steps.timed_train FILE FLAGS ...

FILE gets a line of JSON for each part of the start, and one at iteration 1 and at every tenth, when the loop has waited for
the device anyway: seconds since the process was started, which the parent gives in the environment.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

STARTED = "GPU_STEPS_STARTED"
"""Environment variable with the seconds since the epoch at which the process was started."""


class Diary:
    """Lines of a file, written at once."""

    def __init__(self, path: Path) -> None:
        self._path, self._began = path, float(os.environ[STARTED])

    def now(self) -> float:
        return time.time() - self._began

    def note(self, **line: Any) -> None:
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, each of whose calls leaves a line with its seconds."""

        @wraps(function)
        def noted(*args: Any, **kwargs: Any) -> Any:
            start = self.now()
            result = function(*args, **kwargs)
            self.note(part=part, seconds=self.now() - start)
            return result

        return noted


def main() -> int:
    diary = Diary(Path(sys.argv[1]))
    import config as configuration

    config = configuration.load(sys.argv[2:])
    start = diary.now()
    import guidance.prior
    import train
    import training.state as state
    from training.iterations import logs
    from utils.run_folder import OUTPUTS

    diary.note(part="interpreter and settings", seconds=start)
    diary.note(part="imports", seconds=diary.now() - start)
    for owner, name, part in (
        (state, "initialize", "Gaussians"),
        (guidance.prior, "load_prior", "networks from the disk"),
        (guidance, "embed_prompts", "prompts"),
        (state, "_plan", "memory plan"),
        (guidance.prior, "compile_networks", "compiling"),
    ):
        setattr(owner, name, diary.timed(part, getattr(owner, name)))

    def on_step(step: int) -> None:
        if logs(step, config.optimization.iterations):
            diary.note(step=step, at=diary.now())

    result = train.train(config, OUTPUTS, on_step)
    diary.note(ended=str(result.run.root), at=diary.now(), GB=result.cost.peak_memory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
