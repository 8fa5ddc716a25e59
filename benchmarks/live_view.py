"""What `train.py --view` costs training: python benchmarks/live_view.py [flags of train.py]

One run of the quickstart, watched by a headless Chromium (tests/viewer/chromium.py says where it is found) in every second
block of iterations. Told are: the median speed in both kinds of blocks; the time that the training thread spends in the view;
and the processor time of all the view's threads in the watched blocks, which is the most that they can take from training.
The browser stays open in both kinds of blocks: where it draws without a GPU, that slows both.
"""

from __future__ import annotations

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
from train import train
from viewer.live import LiveView

BLOCK, SETTLING = 10, 2
"""Iterations of a block, and those at its beginning that are not timed: a snapshot of the last block may be under way."""
BROWSER = """
import sys
from tests.viewer.chromium import chromium, opened
with chromium() as browser, opened(browser, sys.argv[1], 400, 300) as page:
    print("here", flush=True)
    sys.stdin.read()
"""


def processor_seconds() -> float:
    """Of all Python threads but the main one and TensorBoard's writer."""
    ticks = 0
    for thread in threading.enumerate():
        if thread is threading.main_thread() or type(thread).__name__ == "_AsyncWriterThread":
            continue
        stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text(encoding="ascii")
        user, system = re.sub(r"^.*\) ", "", stat).split()[11:13]
        ticks += int(user) + int(system)
    return ticks / 100


class Meter:
    """Measures a run's iterations, and has it watched in every second block."""

    def __init__(self) -> None:
        self.seconds: dict[bool, list[float]] = {True: [], False: []}
        self.inside = self.processor = self.total = 0.0
        self._last = self._processor_before = self._total_before = 0.0
        self._real = LiveView.after_step

    def after_step(self, view: LiveView, step: int, *rest: object) -> float:
        now = time.perf_counter()
        block, place = divmod(step - 1, BLOCK)
        watched = block % 2 == 1
        if place >= SETTLING:
            self.seconds[watched].append(now - self._last)
        paused = self._real(view, step, *rest)  # type: ignore[arg-type]
        if watched:
            self.inside += time.perf_counter() - now
        if place == BLOCK - 1:
            used, total = processor_seconds(), time.process_time()
            if watched:
                self.processor += used - self._processor_before
                self.total += total - self._total_before
            self._processor_before, self._total_before = used, total
            view.watched(0 if watched else 1)
        self._last = now
        return paused


def main(argv: list[str]) -> None:
    config = configuration.load([*argv, "--view", "--quiet", "--save_video", "false"])
    meter = Meter()
    browsers: list[subprocess.Popen[str]] = []

    def after_step(view: LiveView, step: int, *rest: object) -> float:
        if not browsers:
            address = f"http://127.0.0.1:{config.view_port}"
            command = [sys.executable, "-c", BROWSER, address]
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
        for browser in browsers:
            browser.communicate()
    watched, alone = (np.array(meter.seconds[kind]) for kind in (True, False))
    print(f"iterations: {len(alone)} alone, {len(watched)} watched")
    print(f"median: {1 / np.median(alone):.3f} it/s alone, {1 / np.median(watched):.3f} it/s watched")
    print(
        f"the training thread was in the view for {meter.inside:.3f} s of {watched.sum():.0f} s: {meter.inside / watched.sum():.3%}"
    )
    print(
        f"the view's threads took {meter.processor:.2f} s of the {meter.total:.0f} s of processor time: {meter.processor / meter.total:.2%}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
