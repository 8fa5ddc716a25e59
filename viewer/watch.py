"""Run the server and the page of `train.py --view`, of a run that is watched as it goes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from config import Config
from viewer.live import LiveView
from viewer.orbit import Orbit

logger = logging.getLogger(__name__)


@contextmanager
def live_view(config: Config) -> Iterator[LiveView | None]:
    """The view of a run, None if it has none. Raises OSError if no port is free."""
    if not config.view:
        yield None
        return
    # Its imports take a second, which only those pay who look.
    from viewer.live_page import LivePage
    from viewer.server import address_of, serving

    with serving(config.view_port, config.guidance.text, Orbit.front(config)) as server:
        page = LivePage(server, config.optimization.iterations)
        view = LiveView(page.show)
        try:
            page.attach(view)
            logger.info("Watch it at %s.", address_of(server))
            yield view
        finally:
            view.close()
