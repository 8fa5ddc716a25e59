"""Programs of npm in a headless Chromium: a server of pages, of node_modules and of exported files, and pictures."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page, Route

from tests.viewer.chromium import PATIENCE

HERE = Path(__file__).parent
CACHE = Path.home() / ".cache" / "segmentdreamer-open" / "programs"
SIZE = 256
CDN = "https://cdn.jsdelivr.net/npm/"
FRAMES = 2
"""Frames between two pictures."""
PAUSE = 500
"""Milliseconds between two pictures: programs sort beside the page, at times later than they draw."""
STEADY, TRIES = 2, 60
"""Pictures in a row that must be the same, and how many are taken at most."""
Picture = NDArray[np.float64]


def installed() -> Path | None:
    """The folder with node_modules of the versions that are pinned, which npm fills the first time; None without npm."""
    pinned = [HERE / "package.json", HERE / "package-lock.json"]
    modules = CACHE / "node_modules"
    if all(
        (CACHE / file.name).is_file() and (CACHE / file.name).read_bytes() == file.read_bytes()
        for file in pinned
    ):
        return modules
    if shutil.which("npm") is None:
        return None
    CACHE.mkdir(parents=True, exist_ok=True)
    for file in pinned:
        shutil.copy(file, CACHE)
    try:
        subprocess.run(["npm", "ci", "--ignore-scripts"], check=True, cwd=CACHE)
    except BaseException:
        (CACHE / "package-lock.json").unlink()  # so that the next call tries again
        raise
    return modules


class Handler(SimpleHTTPRequestHandler):
    """Serves folders by the first part of an address."""

    extensions_map = {  # noqa: RUF012  (as the base class declares it)
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def __init__(self, *given: Any, folders: dict[str, Path]) -> None:
        self.folders = folders
        super().__init__(*given)

    def translate_path(self, path: str) -> str:
        first, _, rest = path.split("?")[0].lstrip("/").partition("/")
        return str(self.folders.get(first, Path("/nowhere")) / rest)

    def log_message(self, format: str, *values: object) -> None:
        """Stay silent."""


@contextmanager
def served(**folders: Path) -> Iterator[str]:
    """Serve folders under their names; the address of the host."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, folders=folders))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def picture_of(page: Page) -> Picture:
    """Picture of a page, float [S, S, 3] in [0, 1]."""
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        return np.asarray(picture.convert("RGB")) / 255


def settled(page: Page, go_on: Callable[[], object]) -> Picture:
    """Picture of a page once it stays the same while it goes on, and is not white."""
    shown, same = picture_of(page), 0
    for _ in range(TRIES):
        go_on()
        page.wait_for_timeout(PAUSE)
        before, shown = shown, picture_of(page)
        same = same + 1 if np.array_equal(before, shown) and float(shown.min()) < 1 else 0
        if same == STEADY:
            return shown
    raise RuntimeError("the page stays white" if float(shown.min()) == 1 else "the page never stays the same")


def page_as_published(browser: Browser, host: str, file: str, modules: Path) -> Picture:
    """A page among the files, whose packages come from jsDelivr for others and from node_modules here."""
    page = browser.new_page(viewport={"width": SIZE, "height": SIZE})
    page.set_default_timeout(PATIENCE)

    def give(route: Route) -> None:
        package, version, rest = re.fullmatch(rf"{CDN}(@?[^@]+)@([^/]+)/(.*)", route.request.url).groups()  # type: ignore[union-attr]
        pinned = json.loads((modules / package / "package.json").read_text())["version"]
        route.fulfill(path=modules / package / rest) if pinned == version else route.abort()

    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.route(f"{CDN}**", give)
    page.goto(f"{host}/files/{file}", wait_until="networkidle")

    def check() -> None:
        if faults:
            raise RuntimeError(faults[0].splitlines()[0])

    shown = settled(page, check)
    page.close()
    return shown


def pictures(
    browser: Browser, host: str, program: str, file: str, suffix: str, views: Sequence[dict[str, list[float]]]
) -> list[Picture]:
    """A file as a program shows it in each view, float [S, S, 3] in [0, 1].

    Raises RuntimeError with what the program reports, or with what it asks for that the host does not have.
    """
    faults: list[str] = []
    page = browser.new_page(viewport={"width": SIZE, "height": SIZE})
    page.set_default_timeout(PATIENCE)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "request",
        lambda one: (
            None
            if one.url.startswith((host, "blob:", "data:"))
            else faults.append(f"asked for {one.url[:100]}")
        ),
    )
    try:
        page.goto(f"{host}/pages/index.html?program={program}")
        page.wait_for_function("window.museum")
        page.evaluate("([url, suffix]) => museum.open(url, suffix)", [f"{host}/files/{file}", suffix])
        shown = []
        for view in views:
            draw = partial(page.evaluate, "([view, frames]) => museum.show(view, frames)", [view, FRAMES])
            draw()
            shown.append(settled(page, draw))
    except Exception as error:
        faults.append(str(error))
        shown = []
    finally:
        page.close()
    if faults:
        raise RuntimeError(faults[0].splitlines()[0])
    return shown
