"""The page report.html opened from the disk: it shows all that it holds and requests nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.small_run import COST, add_pictures, run_in
from tests.viewer.chromium import chromium, opened
from training.report_page import write_report_page

H264 = "document.createElement('video').canPlayType('video/mp4; codecs=avc1.42E01E') !== ''"


@pytest.mark.slow
def test_a_report_shows_its_pictures_and_plays_its_films(tmp_path: Path) -> None:
    run = run_in(tmp_path, "--text", "a red mug")
    add_pictures(run)
    write_report_page(run, COST)
    with chromium() as browser, opened(browser, run.page.as_uri()) as page:
        assert page.title() == "a red mug"
        assert page.locator("h1").inner_text() == "a red mug"
        page.locator("summary").evaluate_all("all => all.forEach(one => one.parentElement.open = true)")
        page.wait_for_function("[...document.images].every(image => image.complete)")
        assert min(page.locator("img").evaluate_all("all => all.map(image => image.naturalWidth)")) > 0
        if page.evaluate(H264):  # which Chromium as its makers build it lacks
            page.wait_for_function(
                "[...document.querySelectorAll('video')].every(film => film.videoWidth > 0)"
            )
        command = page.locator("#command").inner_text()
        assert command == f"python train.py --opt {tmp_path.as_posix()}/config.yaml"
        # With the clipboard, and without.
        for hinder in ("0", "Object.defineProperty(navigator, 'clipboard', {value: undefined})"):
            page.evaluate(hinder)
            page.evaluate(
                "document.oncopy = event => { window.copied = String(getSelection()) }; window.copied = null"
            )
            page.get_by_role("button", name="Copy", exact=True).click()
            page.get_by_role("button", name="Copied").wait_for()
            page.get_by_role("button", name="Copy", exact=True).wait_for()
        assert page.evaluate("window.copied") == command
        # Nothing is wider than the page, on a telephone neither.
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
