"""The flag --view of train.py: its pictures, its cost to training, and its pauses."""

from __future__ import annotations

import logging
import re
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from config import Config
from scene.gaussian_model import GaussianModel
from tests.changed import changed
from tests.viewer.chromium import PATIENCE, chromium, opened, pixels, until
from tests.waits import DEVICE, no_waits
from train import train
from utils.interruption import Interruption
from utils.rotation import quaternion_to_matrix
from viewer import live
from viewer.live import LiveView, Snapshot, Splats
from viewer.watch import live_view


def model(count: int = 50) -> GaussianModel:
    rng = torch.Generator().manual_seed(0)
    points, colors = torch.rand(2, count, 3, generator=rng)
    gaussians = GaussianModel.from_points(points, colors, sh_degree=1)
    raw = {
        "rotation": torch.randn(count, 4, generator=rng),
        "scaling": torch.randn(count, 3, generator=rng) - 3,
    }
    gaussians.set_raw(raw)
    return gaussians


class Browsers:
    """Stand-in for what shows snapshots: it keeps them and signals when one has come."""

    def __init__(self, fails: bool = False) -> None:
        self.seen: list[Snapshot] = []
        self.came = threading.Semaphore(0)
        self.fails = fails

    def show(self, snapshot: Snapshot) -> None:
        if self.fails:
            raise RuntimeError("no browser can draw this")
        self.seen.append(snapshot)
        self.came.release()


NEVER = Interruption()
"""Interruption that does not come."""


def step_until_shown(view: LiveView, browsers: Browsers, gaussians: GaussianModel, first: int = 1) -> int:
    """Iterate until a snapshot has come; return the next iteration."""
    step = first
    while not browsers.came.acquire(blocking=False):
        view.after_step(step, gaussians, {"guidance/t": torch.tensor(500.0)}, NEVER)
        step += 1
        time.sleep(0.001)
    return step


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "INTERVAL", 0.0)
    monkeypatch.setattr(live, "SHARE", 1e9)


def test_splats_are_the_gaussians_that_are_rendered() -> None:
    gaussians = model()
    splats = Splats.of(Snapshot.of(1, gaussians, {}).raw)
    assert np.array_equal(splats.centers, gaussians.means.detach().numpy())
    assert np.allclose(splats.opacities, gaussians.opacities.detach().numpy())
    for k in range(3):
        rotation = quaternion_to_matrix(gaussians.rotations[k].detach()).double().numpy()
        expected = rotation @ np.diag(gaussians.scales[k].detach().double().numpy() ** 2) @ rotation.T
        assert np.allclose(splats.covariances[k], expected, atol=1e-7)
    points = np.asarray(torch.rand(2, 50, 3, generator=torch.Generator().manual_seed(0))[1])
    assert np.allclose(splats.rgbs, points, atol=1e-6)


def test_a_snapshot_is_a_copy_and_not_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MOST", 20)
    gaussians = model()
    before = gaussians.means.detach().clone()
    snapshot = Snapshot.of(3, gaussians, {})
    with torch.no_grad():
        gaussians.means.zero_()
    assert snapshot.count == 50
    assert torch.equal(snapshot.raw["xyz"], before[::3])


def test_nothing_is_copied_unless_a_browser_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    browsers, gaussians = Browsers(), model()
    view = LiveView(browsers.show)
    copies: list[int] = []
    real = Snapshot.of
    monkeypatch.setattr(Snapshot, "of", lambda step, *rest: copies.append(step) or real(step, *rest))
    for step in range(1, 100):
        assert view.after_step(step, gaussians, {}, NEVER) == 0.0
    assert not copies
    view.watched(1)
    step = step_until_shown(view, browsers, gaussians, 100)
    assert browsers.seen[0].step == copies[0] >= 100
    assert float(browsers.seen[0].logged["guidance/t"]) == 500

    view.watched(0)
    copies.clear()
    for later in range(step, step + 100):
        view.after_step(later, gaussians, {}, NEVER)
        time.sleep(0.001)
    assert not copies
    view.close()


def test_who_comes_later_gets_the_next_iteration_and_a_pause_shows_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live, "INTERVAL", 1e6)
    browsers, gaussians = Browsers(), model()
    view = LiveView(browsers.show)
    view.watched(1)
    step_until_shown(view, browsers, gaussians)
    while view._due < 1e6:
        time.sleep(0.001)
    view.after_step(70, gaussians, {}, NEVER)
    view.watched(2)
    view.after_step(71, gaussians, {}, NEVER)
    view.after_step(72, gaussians, {}, NEVER)
    stopped = Interruption()
    stopped.signal = signal.SIGTERM
    view.pause(True)
    view.after_step(73, gaussians, {}, stopped)
    view.close()
    assert [snapshot.step for snapshot in browsers.seen] == [1, 71, 73]


def test_a_snapshot_waits_for_nothing() -> None:
    browsers, host = Browsers(), model()
    raw = {name: torch.empty_like(tensor, device=DEVICE) for name, tensor in host.raw().items()}
    view = LiveView(browsers.show)
    view.watched(1)
    with no_waits():
        view.after_step(1, GaussianModel(raw), {"loss/guidance": torch.empty((), device=DEVICE)}, NEVER)
    view.close()
    assert browsers.seen[0].raw["xyz"].device == DEVICE


def test_what_browsers_see_is_computed_by_one_thread() -> None:
    """A second team of OpenMP threads would slow the loop's own down."""
    usual, found = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        browsers = Browsers()
        view = LiveView(lambda snapshot: found.append(torch.get_num_threads()) or browsers.show(snapshot))
        view.watched(1)
        step_until_shown(view, browsers, model())
        view.close()
        assert found[0] == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(usual)


def test_snapshots_come_less_often_where_they_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SHARE", 0.005)
    browsers, gaussians = Browsers(), model()

    def slow(snapshot: Snapshot) -> None:
        began = time.thread_time()
        while time.thread_time() - began < 0.02:
            pass
        browsers.show(snapshot)

    view = LiveView(slow)
    view.watched(1)
    began = time.monotonic()
    step_until_shown(view, browsers, gaussians)
    view.close()
    assert view._due - began >= 0.02 / 0.005


@pytest.mark.parametrize("ends_by", ["a click", "the last browser", "an interruption", "the end"])
def test_a_pause_lasts_until(ends_by: str) -> None:
    view = LiveView(Browsers().show)
    view.watched(2)
    view.pause(True)
    view.watched(1)
    assert view.paused
    interruption = Interruption()
    end = {
        "a click": lambda: view.pause(False),
        "the last browser": lambda: view.watched(0),
        "an interruption": lambda: setattr(interruption, "signal", signal.SIGTERM),
        "the end": view.close,
    }[ends_by]
    paused: list[float] = []
    waiting = threading.Thread(target=lambda: paused.append(view.after_step(1, model(), {}, interruption)))
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    end()
    waiting.join()
    assert paused[0] > 0.1
    view.pause(False)
    assert view.after_step(2, model(), {}, NEVER) == 0.0
    view.close()


def test_a_view_that_breaks_leaves_the_run_alone(caplog: pytest.LogCaptureFixture) -> None:
    view = LiveView(Browsers(fails=True).show)
    view.watched(1)
    with caplog.at_level(logging.WARNING):
        while not caplog.messages:
            view.after_step(1, model(), {}, NEVER)
            time.sleep(0.001)
    assert caplog.messages == [
        "The view has ended (RuntimeError: no browser can draw this): the run goes on."
    ]
    view.pause(True)
    assert view.after_step(2, model(), {}, NEVER) == 0.0
    view.close()


def test_no_view_unless_it_is_asked_for() -> None:
    with live_view(Config()) as view:
        assert view is None


def test_a_run_that_is_watched_is_the_same_run(tiny_config: Config, tmp_path: Path) -> None:
    small = changed(tiny_config, save_video=False, save_process=False)
    alone = train(small, tmp_path / "alone")
    watched = train(changed(small, view=True), tmp_path / "watched")
    assert watched.run.asset.read_bytes() == alone.run.asset.read_bytes()
    assert watched.run.config.read_text() == alone.run.config.read_text()


@pytest.mark.slow
def test_a_browser_sees_a_run_form_pauses_it_and_goes(
    tiny_config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    endless = changed(
        tiny_config, iterations=100_000, view=True, view_port=8400, save_video=False, save_process=False,
        densify_until_iter=0,
    )  # fmt: skip
    done: list[int] = []
    enough = threading.Event()

    class Enough(Exception):
        pass

    def on_step(step: int) -> None:
        done.append(step)
        if enough.is_set():
            raise Enough

    def run() -> None:
        with pytest.raises(Enough):
            train(endless, tmp_path, on_step)

    def paused_at() -> int:
        """Wait until the run stands still; return its iteration."""
        while True:
            last = done[-1]
            time.sleep(1.0)
            if done[-1] == last:
                return last

    def wait_for_another(than: int) -> None:
        while done[-1] == than:
            time.sleep(0.05)

    training = threading.Thread(target=run)
    with caplog.at_level(logging.INFO, "viewer.watch"):
        training.start()
        while not (address := re.search(r"http://[\d.]+:\d+", caplog.text)):
            assert training.is_alive()
            time.sleep(0.1)
    try:
        with chromium() as browser:
            with opened(browser, address[0]) as page:
                page.get_by_text(re.compile(r"of 100000")).wait_for()
                until(page, lambda picture: bool((picture[300:400, 300:500].min(-1) < 0.9).any()))
                assert re.search(r"t \d+ · loss ", page.inner_text("body"))
                first = pixels(page)[300:400, 300:500]
                until(page, lambda picture: bool((abs(picture[300:400, 300:500] - first) > 0.05).any()))
                page.get_by_role("button", name="Pause").click()
                page.get_by_role("button", name="Resume").wait_for()
                last = paused_at()
                page.get_by_role("button", name="Resume").click()
                wait_for_another(last)
                page.get_by_role("button", name="Pause").click()
                page.get_by_role("button", name="Resume").wait_for()
                last = paused_at()
            # The page is closed, and with it the pause ends.
            wait_for_another(last)
            now = done[-1]
            with opened(browser, address[0], 390, 844) as page:
                first = page.get_by_text(re.compile(r"^Iteration \d+")).text_content(timeout=PATIENCE)
                assert int(re.findall(r"\d+", str(first))[0]) > now
                assert page.title() == endless.guidance.text
    finally:
        enough.set()
        training.join()
