"""Server of both viewers: for this machine's own browsers and nobody else."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import viser

LOOPBACK = "127.0.0.1"
INK = (181, 67, 42)
"""Colour of the buttons: that of the report's curves."""


class LoopbackServer(viser.ViserServer):
    """Server that nothing outside of this machine reaches, not even by the tunnel that a browser may request
    of viser.
    """

    def request_share_url(self, verbose: bool = True) -> None:
        return None


@contextlib.contextmanager
def serving(port: int, title: str) -> Iterator[LoopbackServer]:
    """A server at `port` of this machine, or at the next one that is free; `address_of` returns which."""
    logging.getLogger("websockets").setLevel(logging.WARNING)
    # A browser may be closed between a picture's making and its sending.
    warnings.filterwarnings("ignore", "Queued a .* on a closed connection", UserWarning)
    with _quiet():
        server = LoopbackServer(host=LOOPBACK, port=port, label=title, verbose=False)
    try:
        server.gui.configure_theme(show_logo=False, show_share_button=False, brand_color=INK)
        yield server
    finally:
        with _quiet():
            server.stop()


def address_of(server: viser.ViserServer) -> str:
    return f"http://{LOOPBACK}:{server.get_port()}"


def _quiet() -> contextlib.AbstractContextManager[object]:
    """Suppress viser's own announcements."""
    return contextlib.redirect_stdout(io.StringIO())
