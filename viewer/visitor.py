"""Browser that looks at an asset: its panel, and the pictures that follow its camera."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import viser
from PIL import Image
from torch import Tensor

from gaussian_renderer.activated import Activated
from utils.media import to_float, write_video
from utils.run_folder import slug
from viewer.orbit import Orbit, around, cameras_at, path
from viewer.picture import KINDS, Look, filtered, picture
from viewer.subject import Subject

FRAME = 0.05
"""Seconds that a picture may take while something moves: its size is chosen by that."""
REST = 0.2
"""Seconds without a change after which a picture is drawn in full."""
LARGEST, SMALLEST = 1600, 96
"""Pixels of a picture's longer side in full, and of its height while something moves."""
FPS = 30


class Visitor:
    """Drawer of one browser's pictures, in a thread of its own, until `leave`. `lock` is held while drawing,
    by all.
    """

    def __init__(self, client: viser.ClientHandle, subject: Subject, lock: threading.Lock) -> None:
        self._client, self._subject, self._lock = client, subject, lock
        self._changed, self._gone = threading.Event(), threading.Event()
        self._changed.set()
        self._views: list[Orbit] = []
        self._turn, self._pixel_seconds = 0.0, 1e-6
        self._chosen: tuple[tuple[float, float], Activated] | None = None
        self._build_panel()
        client.camera.on_update(lambda _: self._changed.set())
        threading.Thread(target=self._draw_until_gone, name="visitor", daemon=True).start()

    def leave(self) -> None:
        """End the thread: the browser is closed."""
        self._gone.set()
        self._changed.set()

    def _build_panel(self) -> None:
        gui, degree = self._client.gui, self._subject.gaussians.sh_degree
        self._status = gui.add_markdown("")
        with gui.add_folder("Picture"):
            self._kind = gui.add_dropdown("Show", KINDS)
            level = 255 if self._subject.white else 0
            self._background = gui.add_rgb("Background", (level, level, level))
            # A slider from 0 to 0 cannot be: without harmonics it is hidden.
            self._degree = gui.add_slider(
                "SH degree", 0, max(1, degree), 1, degree, visible=degree > 0,
                hint="Degree of the spherical harmonics that colours are made of: 0 is the same from all sides.",
            )  # fmt: skip
        with gui.add_folder("Gaussians"):
            self._size = gui.add_slider("Size", 0.05, 2.0, 0.05, 1.0, hint="Factor on every Gaussian's size.")
            self._least = gui.add_slider(
                "Least opacity", 0.0, 1.0, 0.01, 0.0, hint="Fainter ones are left out."
            )
            self._largest = gui.add_slider(
                "Largest, %", 1, 100, 1, 100, hint="Only so many stay, the largest are left out first."
            )
        with gui.add_folder("Camera"):
            self._turning = gui.add_checkbox("Turntable", False)
            self._period = gui.add_slider("Seconds a turn", 2, 30, 1, 8)
            front = gui.add_button("Front view", color="gray")
        with gui.add_folder("Save"):
            self._height = gui.add_slider("Height, pixels", 128, 2048, 64, 512)
            screenshot = gui.add_button("Screenshot")
            turntable = gui.add_button("Turntable video")
            self._path_text = gui.add_markdown("")
            add = gui.add_button("Add this view to the path", color="gray")
            clear = gui.add_button("Clear the path", color="gray")
            film = gui.add_button("Path video", disabled=True)
            self._seconds = gui.add_slider("Seconds of video", 1, 30, 1, 4)
            self._progress = gui.add_progress_bar(0.0, visible=False)
        self._film = film
        self._tell_path()

        for control in (
            self._kind,
            self._background,
            self._degree,
            self._size,
            self._least,
            self._largest,
            self._turning,
        ):
            control.on_update(lambda _: self._changed.set())
        front.on_click(lambda _: self._to_front())
        screenshot.on_click(lambda _: self._screenshot())
        turntable.on_click(lambda _: self._video("turntable", lambda n: around(self._here(), n)))
        film.on_click(lambda _: self._video("path", lambda n: path(self._views, n)))
        add.on_click(lambda _: self._set_path([*self._views, self._here()]))
        clear.on_click(lambda _: self._set_path([]))

    # What is looked at.

    def _here(self) -> Orbit:
        camera = self._client.camera
        return Orbit.of(camera.position, camera.look_at, camera.fov).turned(self._turn)

    def _look(self) -> Look:
        red, green, blue = (channel / 255 for channel in self._background.value)
        return Look(
            kind=self._kind.value,
            background=(red, green, blue),
            sh_degree=int(self._degree.value),
            size=float(self._size.value),
            least_opacity=float(self._least.value),
            largest=self._largest.value / 100,
        )

    def _gaussians(self, look: Look) -> Activated:
        """Gaussians that the filters leave: the same tensors as long as the filters stay."""
        key = (look.least_opacity, look.largest)
        if self._chosen is None or self._chosen[0] != key:
            self._chosen = (key, filtered(self._subject.gaussians, look))
        return self._chosen[1]

    def _picture(self, orbit: Orbit, look: Look, width: int, height: int) -> np.ndarray:
        with self._lock:
            return picture(self._gaussians(look), cameras_at([orbit], width, height), look)

    # The pictures of the page.

    def _draw_until_gone(self) -> None:
        sharp, before = True, time.monotonic()
        while not self._gone.is_set():
            turning = self._turning.value
            # Once all is still, a last picture in full; then nothing until something changes.
            changed = self._changed.wait(0 if turning else None if sharp else REST)
            self._changed.clear()
            now = time.monotonic()
            if turning:
                self._turn = (self._turn + 360.0 * (now - before) / self._period.value) % 360.0
            before = now
            if self._gone.is_set():
                return
            sharp = not changed and not turning
            self._draw(sharp)
            if turning:
                time.sleep(max(0.0, FRAME - (time.monotonic() - now)))

    def _draw(self, sharp: bool) -> None:
        """Draw a picture of the browser's shape; unless `sharp`, so small that it takes about FRAME."""
        camera = self._client.camera
        width, height = max(1, camera.image_width), max(1, camera.image_height)
        scale = min(1.0, LARGEST / max(width, height))
        if not sharp:
            quick = (FRAME / (self._pixel_seconds * width * height)) ** 0.5
            scale = min(scale, max(quick, SMALLEST / height))
        width, height = max(1, round(scale * width)), max(1, round(scale * height))
        look = self._look()
        start = time.perf_counter()
        pixels = self._picture(self._here(), look, width, height)
        seconds = time.perf_counter() - start
        self._pixel_seconds = seconds / (width * height)
        self._client.scene.set_background_image(pixels, format="jpeg", jpeg_quality=95 if sharp else 80)
        if sharp:
            count, shown = len(self._subject.gaussians.means), len(self._gaussians(look).means)
            which = f"{count:,} Gaussians" if shown == count else f"{shown:,} of {count:,} Gaussians"
            self._status.content = f"{which} · {width} × {height} in {1000 * seconds:.0f} ms"

    # What the buttons do.

    def _to_front(self) -> None:
        start, camera = self._subject.front, self._client.camera
        self._turn = 0.0
        with self._client.atomic():
            camera.position, camera.look_at = start.position, start.target
        self._changed.set()

    def _set_path(self, views: list[Orbit]) -> None:
        self._views = views
        self._tell_path()

    def _tell_path(self) -> None:
        count = len(self._views)
        self._path_text.content = f"Path: {count} view{'' if count == 1 else 's'}"
        self._film.disabled = count < 2

    def _save_size(self) -> tuple[int, int]:
        """Width and height in pixels, of the browser's shape; even, for videos."""
        camera, height = self._client.camera, int(self._height.value)
        return max(2, 2 * round(height * camera.aspect / 2)), height

    def _file_name(self, what: str) -> str:
        return f"{slug(self._subject.title)}-{what}"

    def _screenshot(self) -> None:
        pixels = self._picture(self._here(), self._look(), *self._save_size())
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "picture.png"
            Image.fromarray(pixels).save(file)
            self._send(self._file_name("view.png"), file.read_bytes())

    def _video(self, what: str, way: Callable[[int], Sequence[Orbit]]) -> None:
        """Render `way` of as many frames as it needs, while the page goes on."""
        orbits, look, size = way(FPS * int(self._seconds.value)), self._look(), self._save_size()

        def frames() -> Iterator[Tensor]:
            for index, orbit in enumerate(orbits):
                if self._gone.is_set():
                    raise OSError("the browser was closed")
                self._progress.value = 100.0 * index / len(orbits)  # type: ignore[misc]  # It has a setter, which mypy misses.
                yield to_float(self._picture(orbit, look, *size))

        self._progress.visible = True
        try:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "video.mp4"
                write_video(file, frames(), FPS)
                self._send(self._file_name(f"{what}.mp4"), file.read_bytes())
        except OSError:
            if not self._gone.is_set():
                raise
        finally:
            self._progress.visible = False

    def _send(self, name: str, content: bytes) -> None:
        self._client.send_file_download(name, content, save_immediately=True)
