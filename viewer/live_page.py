"""Page of a run that is going: one panel, and the Gaussians, the same for all browsers."""

from __future__ import annotations

import threading
import time

import viser

from viewer.live import LiveView, Snapshot, Splats
from viewer.server import LoopbackServer

SHOWN = {"guidance/t": "t", "loss/guidance": "loss", "grad_norm/f_dc": "gradient of the colours"}
"""Logged values that the panel shows, and their names there."""
NOTHING_YET = "The first picture comes with the next iteration."


class LivePage:
    """Page that shows snapshots of a run of so many iterations."""

    def __init__(self, server: LoopbackServer, iterations: int) -> None:
        self._server, self._iterations = server, iterations
        self._counting, self._browsers = threading.Lock(), 0
        self._before: tuple[int, float] | None = None
        self._asset: viser.GaussianSplatHandle | None = None
        self._status = server.gui.add_markdown(NOTHING_YET)
        self._progress = server.gui.add_progress_bar(0.0)
        self._button = server.gui.add_button("Pause")

    def attach(self, view: LiveView) -> None:
        """Connect the page with a run: the button pauses it from now on, and it hears of the browsers."""

        @self._button.on_click
        def _(_: object) -> None:
            view.pause(not view.paused)
            self._tell_button(view)
            # Time that passed meanwhile does not show the speed.
            self._before = None

        @self._server.on_client_connect
        @self._server.on_client_disconnect
        def _(_: viser.ClientHandle) -> None:
            # In several threads at once: whoever comes last knows the number.
            with self._counting:
                self._browsers = len(self._server.get_clients())
                view.watched(self._browsers)
                if not self._browsers:
                    self._forget()
            self._tell_button(view)

    def _tell_button(self, view: LiveView) -> None:
        self._button.label = "Resume" if view.paused else "Pause"

    def _forget(self) -> None:
        """Take back what was shown: whoever comes next would take it for the present iteration."""
        if self._asset is not None:
            self._asset.remove()
        self._asset = self._before = None
        self._status.content, self._progress.value = NOTHING_YET, 0.0  # type: ignore[misc]  # As below.

    def show(self, snapshot: Snapshot) -> None:
        """Show the Gaussians and the numbers of an iteration, if anybody still looks."""
        with self._counting:
            if self._browsers:
                self._draw(snapshot)

    def _draw(self, snapshot: Snapshot) -> None:
        splats = vars(Splats.of(snapshot.raw))
        if self._asset is None:
            self._asset = self._server.scene.add_gaussian_splats("/asset", **splats)
        else:
            # In place: browsers fade a new node in, for which one without a GPU takes a second of a core.
            self._asset.set_gaussians(**splats)
        now = time.monotonic()
        speed = ""
        if self._before is not None and snapshot.step > self._before[0]:
            speed = f" · {(snapshot.step - self._before[0]) / (now - self._before[1]):.2g} it/s"
        self._before = (snapshot.step, now)
        sent = len(snapshot.raw["xyz"])
        count = f"{snapshot.count:,} Gaussians" + (
            "" if sent == snapshot.count else f", {sent:,} of them shown"
        )
        values = " · ".join(
            f"{name} {float(snapshot.logged[key]):.4g}"
            for key, name in SHOWN.items()
            if key in snapshot.logged
        )
        self._status.content = (
            f"**Iteration {snapshot.step}** of {self._iterations}{speed}\n\n{values}\n\n{count}"
        )
        self._progress.value = 100.0 * snapshot.step / self._iterations  # type: ignore[misc]  # It has a setter, which mypy misses.
