"""Records of what a step has found so far: a line of JSON for each measurement, on the disk the moment it is
known.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reasons import reason

DEVICE_LOST = 70
"""The exit code of a process that leaves the rest to another one."""
CALL = {"call": True}
"""Line that begins a call of gpu.py: what failed before it is tried again, what failed after it is not."""


class Records:
    """The measurements of one step, by name, in a file that only grows.

    A line is written before and after each measurement. One that took its process along is therefore known as such, and
    the process that takes over goes on with the next.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self) -> list[dict[str, Any]]:
        """Lines of the file, without a last one that a crash or a full disk has cut."""
        found = []
        for line in self.path.read_text().splitlines() if self.path.exists() else []:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def begin_call(self) -> None:
        self._write(CALL)

    def values(self) -> dict[str, Any]:
        """Return what was measured, by name."""
        return {line["name"]: line["value"] for line in self.lines() if "value" in line}

    def failures(self) -> dict[str, str]:
        """Return why there is no value, by name: of what was begun or failed since the call began."""
        reasons: dict[str, str] = {}
        for line in self.lines():
            if line == CALL:
                reasons = {}
            elif "begun" in line:
                reasons[line["name"]] = "its process ended before it did"
            elif "failed" in line:
                reasons[line["name"]] = line["failed"]
            elif "value" in line:
                reasons.pop(line["name"], None)
        return reasons

    def skipped(self) -> dict[str, str]:
        """Return why something was not measured, by name."""
        return {line["name"]: line["skipped"] for line in self.lines() if "skipped" in line}

    def skip(self, name: str, why: str) -> None:
        """Note that something is not measured here."""
        self._write({"name": name, "skipped": why})

    def once(self, name: str, measure: Callable[[], Any]) -> Any:
        """The value of `name`: measured now, unless it is there already or has failed in this call. None
        without one.
        """
        values = self.values()
        if name in values:
            return values[name]
        if name in self.failures():
            return None
        print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
        self._write({"name": name, "begun": True})
        start = time.perf_counter()
        try:
            value = measure()
        except Exception as error:  # a measurement must not take the next ones along
            traceback.print_exc()
            self._write({"name": name, "failed": reason(error)})
            if device_is_lost():
                os._exit(DEVICE_LOST)
            return None
        self._write({"name": name, "value": value, "seconds": round(time.perf_counter() - start, 2)})
        return value

    def _write(self, line: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # After a line that was cut, on a new one.
        cut = self.path.exists() and not self.path.read_bytes().endswith(b"\n")
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("\n" * cut + json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())


def device_is_lost() -> bool:
    """Return whether this process has broken its CUDA context: nothing works in it any more, but in another
    one it does.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
