"""Server of both viewers: for this machine's own browsers and nobody else."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import viser
from viser import _messages as messages

from viewer.orbit import Orbit, fitted

LOOPBACK = "127.0.0.1"
INK = (181, 67, 42)
"""Colour of the buttons: that of the report's curves."""
SCRIPT = Path(__file__).with_name("window.js")
"""Function of the title that every browser runs once."""


class LoopbackServer(viser.ViserServer):
    """Server that nothing outside of this machine reaches, not even by the tunnel that a browser may request
    of viser.
    """

    def request_share_url(self, verbose: bool = True) -> None:
        return None


@contextlib.contextmanager
def serving(port: int, title: str, front: Orbit) -> Iterator[LoopbackServer]:
    """A server at `port` of this machine, or at the next one that is free; `address_of` returns which.

    title: of tabs and panels; front: browsers begin a little beside this view, with all of it in sight whatever
    their shape.
    """
    logging.getLogger("websockets").setLevel(logging.WARNING)
    # A browser may be closed between a picture's making and its sending.
    warnings.filterwarnings("ignore", "Queued a .* on a closed connection", UserWarning)
    with _quiet():
        server = LoopbackServer(host=LOOPBACK, port=port, label=title, verbose=False)
    try:
        server.gui.configure_theme(show_logo=False, show_share_button=False, brand_color=INK)
        script = f"({SCRIPT.read_text(encoding='utf-8')})({json.dumps(title)})"
        # Viser keeps it for those who come later, as all that is sent to all.
        server._websock_server.queue_message(messages.RunJavascriptMessage(script))
        camera, start = server.initial_camera, front.turned(30).farther(1.25)  # beside the panel
        camera.position, camera.look_at, camera.fov = start.position, start.target, start.fovy

        @server.on_client_connect
        def _(client: viser.ClientHandle) -> None:
            client.camera.on_update(lambda camera: _fit(camera, front.fovy))
            _fit(client.camera, front.fovy)

        yield server
    finally:
        with _quiet():
            server.stop()


def _fit(camera: viser.CameraHandle, fovy: float) -> None:
    """Keep a browser's field of view at what its shape needs, when it is turned and after viser's "Reset view"."""
    if camera.image_height:
        camera.fov = fitted(fovy, camera.aspect)


def address_of(server: viser.ViserServer) -> str:
    return f"http://{LOOPBACK}:{server.get_port()}"


def _quiet() -> contextlib.AbstractContextManager[object]:
    """Suppress viser's own announcements."""
    return contextlib.redirect_stdout(io.StringIO())
