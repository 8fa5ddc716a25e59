"""Page of one asset, for as many browsers as open it: each has a camera and a panel of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import viser

from viewer.server import address_of, serving
from viewer.subject import Subject
from viewer.visitor import Visitor


@contextmanager
def showing(subject: Subject, port: int) -> Iterator[str]:
    """Serve a subject. Yields the address. Raises OSError if no port is free."""
    visitors: dict[int, Visitor] = {}
    lock = threading.Lock()
    with serving(port, subject.title, subject.front) as server:

        @server.on_client_connect
        def _(client: viser.ClientHandle) -> None:
            visitors[client.client_id] = Visitor(client, subject, lock)

        @server.on_client_disconnect
        def _(client: viser.ClientHandle) -> None:
            if visitor := visitors.pop(client.client_id, None):
                visitor.leave()

        try:
            yield address_of(server)
        finally:
            for visitor in list(visitors.values()):
                visitor.leave()
