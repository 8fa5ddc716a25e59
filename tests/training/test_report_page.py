"""The page report.html: one file that holds a run, whatever of it there is."""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from tests.training.small_run import COST, add_pictures, run_in
from training import report_page
from training.report_page import STRIP, try_report_page, write_report_page
from utils.files import digest_of_file
from utils.media import count_frames, write_video
from utils.run_folder import RunFolder


class Page(HTMLParser):
    """Content of a page: its texts, and the attributes of its elements by tag."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def sources(self, tag: str) -> list[bytes]:
        """Bytes that the data addresses of the elements `tag` hold."""
        found = [str(attrs["src"]) for name, attrs in self.elements if name == tag]
        return [base64.b64decode(source.partition(",")[2]) for source in found]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    whole = run_in(tmp_path / "run", "--text", "a red <b>mug</b> & a duck")
    add_pictures(whole)
    with SummaryWriter(str(whole.root)) as writer:
        for step in range(1, 11):
            writer.add_scalar("run/gaussians", 100 * step, step)
            writer.add_scalar("loss/guidance", 7.0, step)
    return whole


def test_the_page_needs_nothing_but_itself(run: RunFolder) -> None:
    write_report_page(run, COST)
    page = Page(run.page)
    assert not page.open
    addresses = [
        str(attrs[key]) for _, attrs in page.elements for key in ("src", "href", "srcset") if key in attrs
    ]
    assert len(addresses) > 10
    assert all(address.startswith("data:") for address in addresses)
    text = run.page.read_text()
    assert not re.search(r"@import|url\(", text)
    # No script but its own, which the policy names by its hash.
    [script] = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert text.count("<script") == 1
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    [policy] = [str(attrs["content"]) for tag, attrs in page.elements if "http-equiv" in attrs]
    assert f"script-src 'sha256-{digest}'" in policy


def test_pictures_and_films_are_in_it(run: RunFolder, tmp_path: Path) -> None:
    write_report_page(run, COST)
    page = Page(run.page)
    films = page.sources("video")
    assert films == [
        path.read_bytes() for path in (run.video(10, "rgb"), run.video(10, "depth"), run.process_video)
    ]
    pictures = [np.asarray(Image.open(io.BytesIO(data))) for data in page.sources("img")]
    assert len(pictures) == 6 + STRIP + 2
    # From the first frame to the last, and the middle ones in their order.
    levels = [float(picture.mean()) / 255 for picture in pictures[6 : 6 + STRIP]]
    assert levels[0] < 0.05
    assert levels[-1] > 0.95
    assert levels == sorted(levels)
    assert {"iteration 1", "iteration 10"} <= set(page.texts)


def test_it_says_what_the_run_was_and_took(run: RunFolder) -> None:
    write_report_page(run, COST, {"recognised ↑": "97%"})
    page = Page(run.page)
    assert page.texts.count("a red <b>mug</b> & a duck") >= 2
    assert {"2 min 31 s", "6,000", "1.07 GB", "3.48", "recognised ↑", "97%"} <= set(page.texts)
    assert digest_of_file(run.asset) in page.texts
    assert "model_key" in page.texts
    [link] = [str(attrs["href"]) for tag, attrs in page.elements if tag == "a"]
    assert base64.b64decode(link.partition(",")[2]) == run.config.read_bytes()


def test_what_varies_is_drawn_first(run: RunFolder) -> None:
    write_report_page(run, COST)
    text = run.page.read_text()
    first, _, others = text.partition("<details><summary>1 more")
    assert "Gaussians</text>" in first
    assert "loss/guidance" not in first
    assert "loss/guidance</text>" in others


@pytest.mark.parametrize(
    ("flags", "file", "open_keys", "folded"),
    [
        (["--seed", "3"], None, {"seed", "iterations", "vis_interval"}, {"model_key", "C_batch_size"}),
        (
            [],
            "seed: 3\nGuidanceParams: {model_key: toybox, text: a mug}\n",
            {"seed", "model_key", "text"},
            set(),
        ),
    ],
    ids=["a preset", "a file of the user's own"],
)
def test_what_the_user_has_set_is_in_sight(
    flags: list[str], file: str | None, open_keys: set[str], folded: set[str], tmp_path: Path
) -> None:
    if file is not None:
        (tmp_path / "mine.yaml").write_text(file)
        flags = ["--opt", str(tmp_path / "mine.yaml")]
    run = run_in(tmp_path / "run", *flags)
    write_report_page(run, COST)
    settings = run.page.read_text().partition("<h2>Settings")[2].partition("</section>")[0]
    shown, _, behind = settings.partition("<details>")
    assert open_keys <= set(re.findall(r"<td>(\w+)</td>", shown))
    assert folded <= set(re.findall(r"<td>(\w+)</td>", behind))
    assert bool(folded) == bool(behind)
    assert not set(re.findall(r"<td>(\w+)</td>", shown)) & set(re.findall(r"<td>(\w+)</td>", behind))


@pytest.mark.parametrize("values", [[2048.0, 2048.5], [0.01, 0.02], [1.0, 3.0, 2.0, 5.0, 4.0, 1.5]])
def test_a_short_curve_shows_every_value_it_has(values: list[float]) -> None:
    drawn = report_page._curve("loss", {1 + 10 * k: value for k, value in enumerate(values)})
    heights = np.array([float(y) for y in re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)"', drawn)])
    # The least value is at the bottom, the greatest at the top, and the others in between.
    share = (heights.max() - heights) / (heights.max() - heights.min())
    expected = (np.array(values) - min(values)) / (max(values) - min(values))
    assert share == pytest.approx(expected, abs=0.01)
    ends = re.findall(r'text-anchor="end">([\d.,]+)</text>', drawn)
    assert [float(end.replace(",", "")) for end in ends] == [max(values), min(values)]


def test_a_run_that_left_little_has_a_page_all_the_same(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    write_report_page(run, COST)
    titles = {text for text in Page(run.page).texts if text in ("The asset", "Curves", "Reproduce")}
    assert titles == {"Reproduce"}


def test_a_large_film_is_made_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_page, "LARGEST_VIDEO", 4_000)
    run = run_in(tmp_path)
    noise = torch.rand(6, 3, 300, 400, generator=torch.Generator().manual_seed(0))
    write_video(run.video(10, "rgb"), noise)
    write_report_page(run, COST)
    [film] = Page(run.page).sources("video")
    (tmp_path / "small.mp4").write_bytes(film)
    assert len(film) < run.video(10, "rgb").stat().st_size / 2
    assert count_frames(tmp_path / "small.mp4") == 6


def test_what_goes_wrong_is_one_sentence(run: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    run.train_picture(10).write_bytes(b"no picture")
    with caplog.at_level(logging.WARNING):
        try_report_page(run, COST)
    assert not run.page.exists()
    [message] = caplog.messages
    assert message.startswith(f"{run.page} cannot be written (UnidentifiedImageError")
    assert "\n" not in message
