"""The viewer in a browser: every control is used, and what it does is seen or saved."""

from __future__ import annotations

import dataclasses
import io
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, Download, Page

from gaussian_renderer.activated import Activated
from scene.gaussian_model import GaussianModel
from tests.viewer.chromium import choose, chromium, control, opened, set_to, until
from utils.media import count_frames
from utils.spherical_harmonics import rgb_to_dc
from viewer.orbit import Orbit, cameras_at
from viewer.page import showing
from viewer.picture import Look, picture
from viewer.subject import Subject

ROOT = Path(__file__).parents[2]
FRONT = Orbit((0.0, 0.0, 0.0), 0.0, 75.0, 4.0, 0.6)
RED, GREEN, BLUE, WHITE, BLACK = (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (0, 0, 0)


def two_balls() -> GaussianModel:
    """A large solid red ball in the middle, and a small faint green one to its left, seen from the front.

    The red one with the first harmonics is black from the front and brighter from behind.
    """
    rest = torch.zeros(2, 3, 3)
    rest[0, 2, 0] = 2.0  # the harmonic of x is -0.4886 x, and x of the direction from the front is -1
    return GaussianModel(
        {
            "xyz": torch.tensor([[0.0, 0.0, 0.0], [0.0, -0.8, 0.0]]),
            "f_dc": rgb_to_dc(torch.tensor([[RED], [GREEN]], dtype=torch.float32)),
            "f_rest": -rest,
            "opacity": torch.logit(torch.tensor([[0.999], [0.6]])),
            "scaling": torch.log(torch.tensor([[0.15] * 3, [0.08] * 3])),
            "rotation": torch.tensor([[1.0, 0.0, 0.0, 0.0]] * 2),
        }
    )


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject("two balls", Activated.of(two_balls()), FRONT, white=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@contextmanager
def visited(browser: Browser, address: str) -> Iterator[Page]:
    with opened(browser, address) as page:
        page.get_by_role("button", name="Screenshot").wait_for()
        page.get_by_role("button", name="Front view").click()
        yield page


@pytest.fixture
def page(browser: Browser, subject: Subject) -> Iterator[Page]:
    with showing(subject, 8200) as address, visited(browser, address) as page:
        yield page


def like(color: tuple[float, ...]) -> np.ndarray:
    return np.array(color, dtype=float)


def at(image: np.ndarray, right: float) -> np.ndarray:
    """The mean colour of a few pixels `right` of the middle, in world units at the target's distance."""
    height, width = image.shape[:2]
    x = round(width / 2 + right * height / (2 * np.tan(FRONT.fovy / 2) * FRONT.radius))
    return image[height // 2 - 2 : height // 2 + 3, x - 2 : x + 3].mean((0, 1))


def shows(color: tuple[float, ...], right: float = 0.0, tolerance: float = 0.15) -> object:
    return lambda image: bool(np.abs(at(image, right) - like(color)).max() < tolerance)


def saved(page: Page, button: str) -> Download:
    with page.expect_download() as download:
        page.get_by_role("button", name=button, exact=True).click()
    return download.value


def image_of(download: Download) -> np.ndarray:
    with Image.open(io.BytesIO(Path(download.path()).read_bytes())) as image:
        assert image.format == "PNG"
        return np.asarray(image)


@pytest.mark.slow
def test_every_control_changes_the_picture_as_it_says(page: Page) -> None:
    green = (0.4, 1, 0.4)  # over white
    until(page, shows(BLACK))
    set_to(page, "SH degree", "0")
    until(page, shows(RED))
    until(page, shows(green, right=-0.8))

    choose(page, "Show", "alpha")
    until(page, shows(WHITE))
    until(page, shows(BLACK, right=-1.2))
    choose(page, "Show", "depth")
    # The green ball, as near as the red one, but less opaque, is darker.
    until(page, lambda image: at(image, 0.0).mean() > at(image, -0.8).mean() + 0.1 > 0.2)
    choose(page, "Show", "colour")
    until(page, shows(RED))

    set_to(page, "Background", "rgb(0, 0, 255)")
    until(page, shows(BLUE, right=-1.2))
    set_to(page, "Background", "rgb(255, 255, 255)")

    set_to(page, "Least opacity", "0.8")
    until(page, shows(WHITE, right=-0.8))
    page.get_by_text(re.compile(r"^1 of 2 Gaussians")).wait_for()
    set_to(page, "Least opacity", "0")
    until(page, shows(green, right=-0.8))

    set_to(page, "Largest, %", "50")
    until(page, shows(WHITE))
    until(page, shows(green, right=-0.8))
    set_to(page, "Largest, %", "100")
    until(page, shows(RED))

    until(page, lambda image: not shows(WHITE, right=0.25)(image))
    set_to(page, "Size", "0.3")
    until(page, shows(WHITE, right=0.25))
    until(page, shows(RED))


@pytest.mark.slow
def test_the_camera_turns_by_itself_by_hand_and_back(page: Page) -> None:
    set_to(page, "SH degree", "0")
    still = until(page, lambda image: shows(RED)(image) and not shows(WHITE, right=-0.8)(image))

    set_to(page, "Seconds a turn", "2")
    control(page, "Turntable").check()
    # A quarter of a turn on, the green ball is before or behind the red one.
    until(page, shows(WHITE, right=-0.8))
    until(page, lambda image: not shows(WHITE, right=-0.8)(image))
    control(page, "Turntable").uncheck()
    page.get_by_role("button", name="Front view").click()
    until(page, lambda image: bool(np.abs(at(image, -0.8) - at(still, -0.8)).max() < 0.05))

    page.mouse.move(200, 350)
    page.mouse.down()
    page.mouse.move(400, 350, steps=8)
    page.mouse.up()
    until(page, shows(WHITE, right=-0.8))
    page.get_by_role("button", name="Front view").click()
    until(page, lambda image: bool(np.abs(at(image, -0.8) - at(still, -0.8)).max() < 0.05))


@pytest.mark.slow
def test_a_screenshot_is_the_rasterizers_own_picture(page: Page, subject: Subject) -> None:
    set_to(page, "Height, pixels", "256")
    choose(page, "Show", "depth")
    depth = image_of(saved(page, "Screenshot"))
    choose(page, "Show", "colour")
    set_to(page, "SH degree", "0")
    until(page, shows(RED))
    download = saved(page, "Screenshot")
    assert download.suggested_filename == "two-balls-view.png"
    image = image_of(download)
    assert image.shape == depth.shape
    height, width = image.shape[:2]
    assert height == 256
    assert width == pytest.approx(256 * 900 / 700, abs=2)
    for found, look in ((image, Look(sh_degree=0)), (depth, Look("depth", sh_degree=1))):
        expected = picture(subject.gaussians, cameras_at([subject.front], width, height), look)
        # The browser's camera is the same to float32's rounding.
        assert np.abs(found.astype(int) - expected).max() <= 2


@pytest.mark.slow
def test_videos_go_around_and_along_a_path(page: Page, tmp_path: Path) -> None:
    set_to(page, "Height, pixels", "128")
    set_to(page, "Seconds of video", "1")
    film = page.get_by_role("button", name="Path video", exact=True)
    assert film.is_disabled()
    for _ in range(2):
        page.get_by_role("button", name="Add this view to the path").click()
        page.mouse.move(200, 350)
        page.mouse.down()
        page.mouse.move(300, 300, steps=4)
        page.mouse.up()
        page.wait_for_timeout(300)
    page.get_by_text("Path: 2 views").wait_for()
    for button, name in (("Turntable video", "turntable"), ("Path video", "path")):
        download = saved(page, button)
        assert download.suggested_filename == f"two-balls-{name}.mp4"
        download.save_as(tmp_path / "film.mp4")
        assert count_frames(tmp_path / "film.mp4") == 30
    page.get_by_role("button", name="Clear the path").click()
    page.get_by_text("Path: 0 views").wait_for()
    assert film.is_disabled()


@pytest.mark.slow
def test_no_control_is_left_out_of_these_tests(page: Page) -> None:
    labels = page.locator("label:visible").all_inner_texts()
    buttons = [text for text in page.get_by_role("button").all_inner_texts() if text.strip()]
    source = Path(__file__).read_text()
    assert len(labels) == 10
    assert len(buttons) == 6
    assert not [name for name in (*labels, *buttons) if source.count(f'"{name}"') < 1]


def shows_it_whole_and_alone(picture: np.ndarray) -> bool:
    """Whether the middle of the page is inked and its sides are blank, so that the asset fits and nothing lies on it."""
    inked = (picture[:780].min(-1) < 0.9).any(0)
    return bool(inked[175:215].all() and not inked[:1].any() and not inked[-1:].any())


@pytest.mark.slow
def test_a_telephone_shows_the_whole_asset_and_a_closed_panel(browser: Browser, tmp_path: Path) -> None:
    """One without harmonics, as wide as it is high."""
    raw = two_balls().raw()
    wide = {**raw, "f_rest": raw["f_rest"][:, :0], "scaling": torch.log(torch.tensor([[0.3, 0.3, 0.3]] * 2))}
    front = dataclasses.replace(FRONT, radius=4.0)
    plain = Subject("wide", Activated.of(GaussianModel(wide)), front, white=True)
    with showing(plain, 8200) as address, opened(browser, address, 390, 844) as page:
        page.wait_for_function("document.title === 'wide'")
        page.get_by_role("button", name="Screenshot").wait_for(state="hidden")
        until(page, shows_it_whole_and_alone)
        page.get_by_text("wide", exact=True).click()
        page.get_by_role("button", name="Screenshot").wait_for()
        assert not page.get_by_text("SH degree").is_visible()


@pytest.mark.thorough
def test_two_browsers_do_not_disturb_each_other(browser: Browser, subject: Subject) -> None:
    with showing(subject, 8200) as address, visited(browser, address) as first:
        with visited(browser, address) as second:
            set_to(second, "SH degree", "0")
            until(second, shows(RED))
            until(first, shows(BLACK))
        set_to(first, "SH degree", "0")
        until(first, shows(RED))


def test_the_command_serves_a_file_on_the_next_free_port_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    two_balls().save_ply(tmp_path / "balls.ply")
    command = [sys.executable, str(ROOT / "view.py"), str(tmp_path / "balls.ply"), "--port", "8300"]
    # Of a test in a shell's background, processes would inherit that Ctrl-C is ignored.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    servers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=heed) for _ in range(2)
    ]
    try:
        addresses = []
        for server in servers:
            assert server.stdout is not None
            said = re.fullmatch(r"balls: (http://127\.0\.0\.1:(\d+)) .*\n", server.stdout.readline())
            assert said is not None
            assert int(said[2]) >= 8300
            addresses.append(said[1])
            with urllib.request.urlopen(said[1]) as page:
                assert b"<title>" in page.read()
        assert addresses[0] != addresses[1]
    finally:
        for server in servers:
            server.send_signal(signal.SIGINT)
    for server in servers:
        rest, _ = server.communicate()
        assert server.returncode == 0
        assert not rest.strip()


@pytest.mark.parametrize("words", [["nowhere.ply"], ["."], ["README.md", "--device", "abacus"]])
def test_what_cannot_be_viewed_is_one_sentence(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from view import main

    monkeypatch.chdir(tmp_path)
    assert main(words) == 1
    said = capsys.readouterr().err
    assert said.startswith("view.py: ")
    assert said.count("\n") == 1
    assert words[-1] in said
