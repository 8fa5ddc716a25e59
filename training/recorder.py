"""Files that a run leaves behind: pictures, videos, point clouds and TensorBoard events.

On the way, the loop only has it rendered: as tensors of their own, which no later iteration changes, pictures go to a thread
that waits for the device, compresses, encodes and writes.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

import config as configuration
from config import Config
from gaussian_renderer.showcase import show, show_pixels, solid
from gaussian_renderer.training_views import TrainingViews
from guidance import GuidanceOutput
from scene.cameras import six_views, turntable
from scene.cameras_json import cameras_json, cfg_args
from scene.gaussian_model import GaussianModel
from scene.ply import write_gaussians
from scene.skeleton.file import write_skeleton
from scene.skeleton.skeleton import Skeleton
from training.report_page import try_report_page
from training.report_picture import report_sheet, tiles
from training.training_picture import training_picture
from utils.background import Background
from utils.device import HOST
from utils.event_log import EventLog, gather
from utils.files import write_text
from utils.finite import NotFiniteError
from utils.media import Pixels, Row, contact_sheet, read_image, rows_sheet, write_png, write_video
from utils.run_cost import RunCost
from utils.run_folder import RunFolder

logger = logging.getLogger(__name__)

TURNTABLE_FRAMES = 120
STRIP = 6
"""Pictures in the report's strip of the asset as it formed."""
MOST_PENDING = 2**29
"""Bytes of device memory for what is not written yet; beyond, the loop waits. A turntable of 120 frames of 512² has 94 MB."""


def evenly(iterations: int, times: int) -> set[int]:
    """`times` iterations of a run, evenly spaced, the last one among them."""
    return {max(1, round(iterations * (k + 1) / times)) for k in range(times)}


class Recorder:
    """Writer of a run's files as it goes: a context manager, at whose end all is written and the log is closed.

    `decode` makes images [V, 3, H, W] of clean latents [V, ...]; `done`: iterations that are done already, from a
    checkpoint.
    """

    def __init__(
        self, config: Config, run: RunFolder, decode: Callable[[Tensor], Tensor], done: int = 0
    ) -> None:
        self.config, self.run, self._decode = config, run, decode
        iterations = config.optimization.iterations
        self._test_steps = evenly(iterations, config.test_ratio)
        self._save_steps = evenly(iterations, config.save_ratio)
        frames = (
            min(config.optimization.pro_frames_num, iterations) if config.optimization.save_process else 0
        )
        # Frame k of the process video belongs to the iteration that is due for it; it turns once in all.
        self._process = {max(1, round(iterations * (k + 1) / frames)): k for k in range(frames)}
        polar = 45.0 if config.optimization.pro_render_45 else config.camera.default_polar
        self._process_cameras = turntable(
            config.camera.model_copy(update={"default_polar": polar}), max(frames, 1)
        )
        self._how: dict[str, Any] = {
            "white": self.white,
            "ssaa": config.camera.SSAA,
            "antialiasing": config.pipeline.antialiasing,
        }
        self._background = Background(MOST_PENDING)
        self._given_up: set[str] = set()
        self._log = EventLog(run.root, done)
        write_text(run.config, configuration.dump(config))
        with self._extra("The cameras"):
            write_text(
                run.cfg_args, cfg_args(config.model.sh_degree, str(run.root), white_background=self.white)
            )
            write_text(run.cameras, cameras_json(six_views(config.camera)))

    @contextmanager
    def _extra(self, what: str, step: int | None = None) -> Iterator[None]:
        """Guard what a run can do without, and go on: what the disk does not take is reported once, a picture of numbers that
        are not finite, as those of an iteration that is left out, at each `step`."""
        try:
            yield
        except NotFiniteError:
            when = "" if step is None else f" of iteration {step}"
            logger.warning("%s%s: not all values are finite, left out.", what, when)
        except OSError as error:
            if what not in self._given_up:
                reason = error.strerror or error
                logger.warning("%s cannot be written (%s): the run goes on without.", what, reason)
            self._given_up.add(what)

    @property
    def white(self) -> bool:
        return self.config.model.white_background

    def start(self, gaussians: GaussianModel, skeleton: Skeleton | None = None) -> None:
        """Draw what training starts from, as solid as it can be drawn: shapes begin nearly transparent. Keep its skeleton,
        from which an export takes its skin."""
        if skeleton is not None:
            with self._extra("The skeleton"):
                write_skeleton(self.run.skeleton, skeleton)
        cameras = six_views(self.config.camera)
        labels = [f"{round(azimuth) % 360}°" for azimuth in cameras.azimuth.tolist()]
        shown = show(solid(gaussians), cameras, **self._how)
        rows = [
            Row(title, tiles(images), labels)
            for title, images in (("The start", shown.rgb), ("Its depth", shown.depth))
        ]
        with self._extra("The picture of the start"):
            write_png(self.run.start, rows_sheet(rows))

    def scalars(self, step: int, values: Mapping[str, float | Tensor]) -> None:
        """Log scalars by name ('group/name') for TensorBoard."""
        fetch = gather(values)
        self._background.submit(lambda: self._log.scalars(step, fetch()))

    def picture(self, step: int, seen: TrainingViews, guided: GuidanceOutput) -> None:
        """Make the picture of `training_picture`, at iteration 1 and every `vis_interval`."""
        if step % self.config.guidance.vis_interval and step != 1:
            return
        picture = training_picture(seen, guided.predictions, guided.gradient, self._decode)

        def write() -> None:
            with self._extra("A training picture", step):
                sheet = picture.sheet()
                self._log.image("train/views", sheet, step)
                write_png(self.run.train_picture(step), sheet)

        self._background.submit(write, picture.nbytes)

    def after_step(self, step: int, gaussians: GaussianModel) -> None:
        """Write whatever is due after iteration `step`."""
        if step in self._process:
            self._process_frame(step, gaussians)
        if step in self._test_steps:
            self._test_views(step, gaussians)
            if self.config.save_video:
                self._turntable(step, gaussians)
        if step in self._save_steps:
            self._point_cloud(step, gaussians)

    def _process_frame(self, step: int, gaussians: GaussianModel) -> None:
        """Write a frame as a file of its own until the end, so that a run that stops here can go on."""
        index = self._process[step]
        frame = show_pixels(gaussians, self._process_cameras[index : index + 1], **self._how).rgb

        def write() -> None:
            with self._extra("A frame of the process video", step):
                write_png(self.run.process_frame(index), frame.on_host()[0])

        self._background.submit(write, frame.nbytes)

    def _test_views(self, step: int, gaussians: GaussianModel) -> None:
        cameras = six_views(self.config.camera)
        views = show_pixels(gaussians, cameras, **self._how).rgb
        statistics = {"opacity": gaussians.opacities.detach(), "scale": gaussians.scales.detach()}

        def write() -> None:
            with self._extra("The test views", step):
                images = views.on_host()
                self._log.image("test/six_views", contact_sheet(images, columns=3), step)
                for azimuth, image in zip(cameras.azimuth.tolist(), images):
                    write_png(self.run.test_view(step, azimuth), image)
            with self._extra("A histogram", step):
                for name, values in statistics.items():
                    if not bool(torch.isfinite(values).all()):
                        raise NotFiniteError(f"{name} has values that are not finite.")
                    self._log.histogram(f"gaussians/{name}", values.to(HOST), step)

        self._background.submit(write, views.nbytes + sum(values.nbytes for values in statistics.values()))

    def _turntable(self, step: int, gaussians: GaussianModel) -> None:
        around = turntable(self.config.camera, TURNTABLE_FRAMES, render_45=self.config.camera.render_45)
        shown = show_pixels(gaussians, around, **self._how)

        def write(kind: str, frames: Pixels) -> None:
            with self._extra("A turntable video", step):
                write_video(self.run.video(step, kind), frames.on_host())

        # One job each, so that the first one's memory is free while the second is encoded.
        for kind, frames in (("rgb", shown.rgb), ("depth", shown.depth)):
            self._background.submit(partial(write, kind, frames), frames.nbytes)

    def _point_cloud(self, step: int, gaussians: GaussianModel) -> None:
        # Copies, for the optimizer changes the parameters in place.
        raw = {name: parameter.detach().clone() for name, parameter in gaussians.raw().items()}

        def write() -> None:
            with self._extra("The Gaussians on the way", step):
                write_gaussians(self.run.point_cloud(step), raw)

        self._background.submit(write, sum(tensor.nbytes for tensor in raw.values()))

    def drain(self) -> None:
        """Wait until all that the run has produced so far is on the disk."""
        self._background.drain()
        self._log.flush()

    def finish(self, gaussians: GaussianModel, lines: list[str]) -> None:
        """Write the final asset, the process video, and the report, with `lines` of text under its pictures."""
        gaussians.save_ply(self.run.asset)
        self.drain()
        frames = [self.run.process_frame(index) for index in sorted(self._process.values())]
        frames = [frame for frame in frames if frame.exists()]
        with self._extra("The report"):
            self._report(gaussians, lines, frames)
        if frames:
            with self._extra("The process video"):
                write_video(self.run.process_video, map(read_image, frames))

    def page(self, cost: RunCost) -> None:
        """Write the page of the finished run, once the log is closed: it is made of the other files."""
        try_report_page(self.run, cost)

    def tidy(self) -> None:
        """Remove what the process video was made of: not before the run is finished, for until then it may be made again."""
        if self.run.process_video.exists():
            shutil.rmtree(self.run.process_frames, ignore_errors=True)

    def _report(self, gaussians: GaussianModel, lines: list[str], frames: list[Path]) -> None:
        shown = show(gaussians, six_views(self.config.camera), **self._how)
        rows = [Row("Six views, 60° apart", shown.rgb), Row("Their depth", shown.depth)]
        if frames:
            chosen = sorted({round((len(frames) - 1) * (k + 1) / STRIP) for k in range(STRIP)})
            rows.append(Row("As it formed", torch.stack([read_image(frames[index]) for index in chosen])))
        write_png(self.run.report, report_sheet(self.config.guidance.text, lines, rows))

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # Who interrupts a run for good does not wait: what is dropped, a resumed run makes again.
            self._background.close(drop=error is not None and not isinstance(error, Exception))
        except Exception as failure:
            if error is None:
                raise
            logger.warning("Besides, not all could be written: %s", failure)
        finally:
            self._log.close()
