"""Measure what `train.py --view` costs training: python benchmarks/live_view.py [flags of train.py]

Two runs of the quickstart, watched by a headless Chromium (tests/viewer/chromium.py finds it) in every second
block of iterations: the second run in those that the first one was alone in. So every iteration, which has
work of its own, is compared with itself, and what changes from one run to the other cancels out. It prints:
how much longer a watched iteration takes; the time that the training thread spends in the view; and the
processor time of all the view's threads in the watched blocks, which is the most that they can take from
training. The browser is open in all blocks, and draws nothing, like one that has a GPU or another machine for
that. BROWSER=draws lets it draw, for which it takes a core where it has no GPU.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import config as configuration
from config import Config
from train import train
from viewer.live import LiveView

BLOCK, SETTLING = 10, 2
"""Iterations of a block, and those at its beginning that are not timed: a snapshot of the last block may be under way."""
BROWSER = """
import sys
from tests.viewer.chromium import chromium, opened
with chromium() as browser, opened(browser, sys.argv[1], 400, 300) as page:
    if sys.argv[2] == "receives":
        page.evaluate("requestAnimationFrame = () => 0")
    print("here", flush=True)
    sys.stdin.read()
"""


def processor_seconds() -> float:
    """Processor seconds of all Python threads but the main one and TensorBoard's writer."""
    ticks = 0
    for thread in threading.enumerate():
        if thread is threading.main_thread() or type(thread).__name__ == "_AsyncWriterThread":
            continue
        stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text(encoding="ascii")
        user, system = re.sub(r"^.*\) ", "", stat).split()[11:13]
        ticks += int(user) + int(system)
    return ticks / 100


class Meter:
    """Meter of a run's iterations, which has it watched in every second block: the first of two if it is `even`."""

    def __init__(self, even: bool) -> None:
        self._even = even
        self.seconds: dict[int, float] = {}
        self.inside = self.processor = self.total = 0.0
        self._last = self._processor_before = self._total_before = 0.0
        self._real = LiveView.after_step

    def watches(self, step: int) -> bool:
        return ((step - 1) // BLOCK % 2 == 0) == self._even

    def after_step(self, view: LiveView, step: int, *rest: object) -> float:
        now = time.perf_counter()
        place = (step - 1) % BLOCK
        if place >= SETTLING:
            self.seconds[step] = now - self._last
        paused = self._real(view, step, *rest)  # type: ignore[arg-type]
        if self.watches(step):
            self.inside += time.perf_counter() - now
        if place == BLOCK - 1:
            used, total = processor_seconds(), time.process_time()
            if self.watches(step):
                self.processor += used - self._processor_before
                self.total += total - self._total_before
            self._processor_before, self._total_before = used, total
            view.watched(int(self.watches(step + 1)))
        self._last = now
        return paused


def watched_run(config: Config, even: bool) -> Meter:
    """A run in the browser; its first block is not timed, for the browser is opened in it."""
    meter = Meter(even)
    browsers: list[subprocess.Popen[str]] = []

    def after_step(view: LiveView, step: int, *rest: object) -> float:
        if not browsers:
            address = f"http://127.0.0.1:{config.view_port}"
            command = [sys.executable, "-c", BROWSER, address, os.environ.get("BROWSER", "receives")]
            browser = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            browsers.append(browser)
            assert browser.stdout is not None
            browser.stdout.readline()
        return meter.after_step(view, step, *rest)

    LiveView.after_step = after_step  # type: ignore[method-assign, assignment]
    try:
        with tempfile.TemporaryDirectory() as folder:
            train(config, Path(folder))
    finally:
        LiveView.after_step = meter._real  # type: ignore[method-assign]
        for browser in browsers:
            browser.communicate()
    return meter


def main(argv: list[str]) -> None:
    config = configuration.load(["--fast", "false", *argv, "--view", "--quiet", "--save_video", "false"])
    meters = [watched_run(config, even) for even in (False, True)]
    one, other = meters
    steps = [step for step in one.seconds if step > BLOCK]
    # Of each kind of block the median, and of both the mean, in which the faster run's lead counts once for and once against.
    logs = {
        kind: np.median(
            [math.log(one.seconds[step] / other.seconds[step]) for step in steps if one.watches(step) == kind]
        )
        for kind in (True, False)
    }
    longer = math.exp((logs[True] - logs[False]) / 2) - 1
    speeds = {
        kind: 1
        / np.median(
            [meter.seconds[step] for meter in meters for step in steps if meter.watches(step) == kind]
        )
        for kind in (True, False)
    }
    inside, processor, total = (
        sum(getattr(meter, name) for meter in meters) for name in ("inside", "processor", "total")
    )
    seconds = sum(meter.seconds[step] for meter in meters for step in steps if meter.watches(step))
    print(f"iterations: {len(steps)}, each once alone and once watched")
    print(f"median: {speeds[False]:.3f} it/s alone, {speeds[True]:.3f} it/s watched")
    print(f"the same iteration takes {longer:+.2%} when watched")
    print(
        f"the training thread was in the view for {inside:.3f} s of {seconds:.0f} s: {inside / seconds:.3%}"
    )
    print(
        f"the view's threads took {processor:.2f} s of the {total:.0f} s of processor time: {processor / total:.2%}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
