"""A headless Chromium that draws WebGL without a GPU, and the content of its page."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Request, sync_playwright

SYSTEM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",  # containers run everything as root
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
)
PATIENCE = 120_000
"""Milliseconds after which something is taken for never coming: nothing here is measured."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Open the browser that playwright has installed, or else the system's; skip the test if there is none."""
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        executable = own if Path(own).exists() else next(filter(None, map(shutil.which, SYSTEM)), None)
        if executable is None:
            pytest.skip("there is no Chromium: python -m playwright install chromium")
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, address: str, width: int = 900, height: int = 700) -> Iterator[Page]:
    """Open a page; the test fails if it reports an error or requests anything that is not at the address's host."""
    faults: list[str] = []
    allowed = ("data:", "blob:", address.rstrip("/"))

    def note(request: Request) -> None:
        if not request.url.startswith(allowed):
            faults.append(f"asked for {request.url[:100]}")

    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(PATIENCE)
    page.on("request", note)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    page.goto(address)
    # Without viser's notices, such as the one about the lack of a GPU, which may come late.
    page.add_style_tag(content=".mantine-Notification-root { display: none }")
    yield page
    page.close()
    assert not faults, faults


def pixels(page: Page) -> np.ndarray:
    """Picture of the page, float [H, W, 3] in [0, 1]."""
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        return np.asarray(picture.convert("RGB")) / 255


def until(page: Page, seen: Callable[[np.ndarray], bool]) -> np.ndarray:
    """Wait for the first of the page's pictures for which `seen` holds, and return it."""
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE / 1000:
        if seen(picture := pixels(page)):
            return picture
        page.wait_for_timeout(100)
    raise AssertionError("the page never showed what it should")


def control(page: Page, label: str) -> Locator:
    """Input beside a label of viser's panel; the number if it is a slider."""
    row = page.get_by_text(label, exact=True).locator("xpath=ancestor::div[2]")
    return row.locator("input:not([type=hidden])").first


def set_to(page: Page, label: str, value: str) -> None:
    control(page, label).fill(value)
    control(page, label).press("Enter")


def choose(page: Page, label: str, option: str) -> None:
    control(page, label).click()
    page.get_by_role("option", name=option).click()
