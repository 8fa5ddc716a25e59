"""`train.py --view`: the Gaussians in the browser as they form, and a button that pauses the run.

Training pays for a copy of a few tensors every other second, and only while a browser looks; all else happens in threads of
their own. The browser draws the Gaussians itself, in the one colour that they have from all sides.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scene.gaussian_model import GaussianModel
from utils.background import lone_thread
from utils.device import HOST
from utils.interruption import Interruption
from utils.rotation import quaternion_to_matrix
from utils.spherical_harmonics import dc_to_rgb

INTERVAL = 2.0
"""Seconds between two pictures, at least."""
SHARE = 0.005
"""Share of the time that making pictures may take: with more Gaussians there are fewer."""
MOST = 200_000
"""Number of Gaussians that are sent, at most: of more, every second, third, …"""
POLL = 0.2
"""Seconds in which a pause notices that the run is to stop."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """State of an iteration for the browsers: raw means, f_dc, opacity, scaling and rotation of n of all
    `count` Gaussians, and the logged values.
    """

    step: int
    count: int
    raw: Mapping[str, Tensor]
    logged: Mapping[str, float | Tensor]

    @staticmethod
    @torch.no_grad()
    def of(step: int, gaussians: GaussianModel, logged: Mapping[str, float | Tensor]) -> Snapshot:
        """A copy of the state, for training changes the tensors in place. Nothing waits for the device."""
        stride = max(1, -(-len(gaussians) // MOST))
        names = ("xyz", "f_dc", "opacity", "scaling", "rotation")
        raw = {name: gaussians.raw()[name].detach()[::stride].clone() for name in names}
        return Snapshot(step, len(gaussians), raw, dict(logged))


@dataclass(frozen=True)
class Splats:
    """Gaussians as viser draws them.

    centers [N, 3], covariances [N, 3, 3], rgbs and opacities [N, 3] and [N, 1] in [0, 1].
    """

    centers: np.ndarray
    covariances: np.ndarray
    rgbs: np.ndarray
    opacities: np.ndarray

    @staticmethod
    def of(raw: Mapping[str, Tensor]) -> Splats:
        """Gaussians from raw parameters, as in GaussianModel."""
        host = {name: tensor.to(HOST) for name, tensor in raw.items()}
        axes = quaternion_to_matrix(host["rotation"]) * host["scaling"].exp()[:, None, :]
        return Splats(
            centers=host["xyz"].numpy(),
            covariances=(axes @ axes.transpose(1, 2)).numpy(),
            rgbs=dc_to_rgb(host["f_dc"][:, 0]).clamp(0, 1).numpy(),
            opacities=host["opacity"].sigmoid().numpy(),
        )


class LiveView:
    """Link from a run to its browsers. `after_step` is the training thread's, all else that of the others."""

    def __init__(self, show: Callable[[Snapshot], None]) -> None:
        """Start without browsers. show: gives a snapshot to all browsers, in a thread of its own."""
        self._show, self._thread = show, lone_thread("live view")
        self._browsers, self._over = 0, False
        self._shown = 0  # the iteration of the last snapshot
        self._due = 0.0  # the next snapshot, by time.monotonic()
        self._running = threading.Event()
        self._running.set()

    def after_step(
        self,
        step: int,
        gaussians: GaussianModel,
        logged: Mapping[str, float | Tensor],
        interruption: Interruption,
    ) -> float:
        """Show an iteration, if it is time, and wait while the run is paused and not interrupted; returns the seconds waited."""
        if time.monotonic() >= self._due:
            self._tell(step, gaussians, logged)
        if self._running.is_set():
            return 0.0
        # What stands still is what is shown.
        if self._shown != step:
            self._tell(step, gaussians, logged)
        start = time.perf_counter()
        while not self._running.wait(POLL) and interruption.signal is None:
            pass
        return time.perf_counter() - start

    @property
    def paused(self) -> bool:
        return not self._running.is_set()

    def pause(self, paused: bool) -> None:
        if paused and not self._over:
            self._running.clear()
        else:
            self._running.set()

    def watched(self, browsers: int) -> None:
        """Note how many browsers look. One more gets the next iteration. Without any, nothing is copied, and a paused
        run goes on: nobody could resume it.
        """
        if browsers > self._browsers:
            self._due = 0.0
        self._browsers = browsers
        if not browsers:
            self.pause(False)

    def close(self) -> None:
        self._over = True
        self.pause(False)
        self._thread.shutdown()

    def _tell(self, step: int, gaussians: GaussianModel, logged: Mapping[str, float | Tensor]) -> None:
        """Hand a snapshot to the view's thread, if anybody looks."""
        if self._browsers and not self._over:
            self._due, self._shown = math.inf, step
            self._thread.submit(self._give, Snapshot.of(step, gaussians, logged))

    def _give(self, snapshot: Snapshot) -> None:
        start = time.thread_time()
        try:
            self._show(snapshot)
        # Whatever it is: the run goes on without, and nobody can pause it any more.
        except Exception as error:
            self._over = True
            self.pause(False)
            logger.warning("The view has ended (%s: %s): the run goes on.", type(error).__name__, error)
        else:
            self._due = time.monotonic() + max(INTERVAL, (time.thread_time() - start) / SHARE)
