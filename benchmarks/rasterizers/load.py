"""Make a load up: processes that are busy on the cores that this one may use."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def busy(number: int) -> Iterator[None]:
    """Keep so many processes busy, which compute and touch no memory, until the context is left."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
