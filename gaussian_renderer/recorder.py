"""What a run leaves behind: pictures, videos, point clouds and TensorBoard events."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

import config as configuration
from config import Config
from gaussian_renderer import Gaussians
from gaussian_renderer.report_page import try_report_page
from gaussian_renderer.showcase import Shown, show, solid
from gaussian_renderer.training_picture import training_picture
from gaussian_renderer.training_views import TrainingViews
from scene.cameras import Cameras, six_views, turntable
from scene.cameras_json import cameras_json, cfg_args
from scene.gaussian_model import GaussianModel
from utils.event_log import EventLog
from utils.files import write_text
from utils.media import Row, contact_sheet, read_image, rows_sheet, write_png, write_video
from utils.report import report_sheet, tiles
from utils.run_cost import RunCost
from utils.run_folder import RunFolder

logger = logging.getLogger(__name__)

TURNTABLE_FRAMES = 120
STRIP = 6
"""Pictures in the report's strip of the asset as it formed."""


def evenly(iterations: int, times: int) -> set[int]:
    """`times` iterations of a run, evenly spaced, the last one among them."""
    return {max(1, round(iterations * (k + 1) / times)) for k in range(times)}


class Recorder:
    """Writes a run's files as it goes. A context manager, which closes the log.

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
        self._given_up: set[str] = set()
        self._log = EventLog(run.root, done)
        write_text(run.config, configuration.dump(config))
        with self._extra("The cameras"):
            write_text(
                run.cfg_args, cfg_args(config.model.sh_degree, str(run.root), white_background=self.white)
            )
            write_text(run.cameras, cameras_json(six_views(config.camera)))

    @contextmanager
    def _extra(self, what: str) -> Iterator[None]:
        """Of what a run can do without: if the disk does not take it, that is told once, and the run goes on."""
        try:
            yield
        except OSError as error:
            if what not in self._given_up:
                reason = error.strerror or error
                logger.warning("%s cannot be written (%s): the run goes on without.", what, reason)
            self._given_up.add(what)

    @property
    def white(self) -> bool:
        return self.config.model.white_background

    def _show(self, gaussians: Gaussians, cameras: Cameras) -> Shown:
        return show(
            gaussians,
            cameras,
            white=self.white,
            ssaa=self.config.camera.SSAA,
            antialiasing=self.config.pipeline.antialiasing,
        )

    def start(self, gaussians: GaussianModel) -> None:
        """The picture of what training starts from, as solid as it can be drawn: shapes begin nearly transparent."""
        cameras = six_views(self.config.camera)
        labels = [f"{round(azimuth) % 360}°" for azimuth in cameras.azimuth.tolist()]
        shown = self._show(solid(gaussians), cameras)
        rows = [
            Row(title, tiles(images), labels)
            for title, images in (("The start", shown.rgb), ("Its depth", shown.depth))
        ]
        with self._extra("The picture of the start"):
            write_png(self.run.start, rows_sheet(rows))

    def scalars(self, step: int, values: Mapping[str, float | Tensor]) -> None:
        """TensorBoard scalars by name ('group/name')."""
        self._log.scalars(step, values)

    def picture(
        self, step: int, seen: TrainingViews, predictions: Mapping[str, Tensor], gradient: Tensor
    ) -> None:
        """At iteration 1 and every `vis_interval`: the picture of `training_picture`."""
        if step % self.config.guidance.vis_interval and step != 1:
            return
        sheet = training_picture(seen, predictions, gradient, self._decode)
        with self._extra("A training picture"):
            write_png(self.run.train_picture(step), sheet)
        self._log.image("train/views", sheet, step)

    def after_step(self, step: int, gaussians: GaussianModel) -> None:
        """Whatever is due after iteration `step`."""
        if step in self._process:
            self._process_frame(step, gaussians)
        if step in self._test_steps:
            self._test(step, gaussians)
        if step in self._save_steps:
            with self._extra("The Gaussians on the way"):
                gaussians.save_ply(self.run.point_cloud(step))

    def _process_frame(self, step: int, gaussians: GaussianModel) -> None:
        """A file of its own until the end, so that a run that stops here can go on."""
        index = self._process[step]
        frame = self._show(gaussians, self._process_cameras[index : index + 1]).rgb[0]
        with self._extra("A frame of the process video"):
            write_png(self.run.process_frame(index), frame)

    def _test(self, step: int, gaussians: GaussianModel) -> None:
        cameras = six_views(self.config.camera)
        shown = self._show(gaussians, cameras)
        with self._extra("The test views"):
            for azimuth, image in zip(cameras.azimuth.tolist(), shown.rgb):
                write_png(self.run.test_view(step, azimuth), image)
        self._log.image("test/six_views", contact_sheet(shown.rgb, columns=3), step)
        for name, values in (("opacity", gaussians.opacities), ("scale", gaussians.scales)):
            self._log.histogram(f"gaussians/{name}", values.detach().cpu(), step)
        if self.config.save_video:
            around = turntable(self.config.camera, TURNTABLE_FRAMES, render_45=self.config.camera.render_45)
            frames = self._show(gaussians, around)
            with self._extra("A turntable video"):
                write_video(self.run.video(step, "rgb"), frames.rgb)
                write_video(self.run.video(step, "depth"), frames.depth)

    def finish(self, gaussians: GaussianModel, lines: list[str]) -> None:
        """The final asset, the process video, and the report, with `lines` of text under its pictures."""
        gaussians.save_ply(self.run.asset)
        frames = [self.run.process_frame(index) for index in sorted(self._process.values())]
        frames = [frame for frame in frames if frame.exists()]
        with self._extra("The report"):
            self._report(gaussians, lines, frames)
        if frames:
            with self._extra("The process video"):
                write_video(self.run.process_video, map(read_image, frames))

    def page(self, cost: RunCost) -> None:
        """The page of the finished run, once the log is closed: it is made of the other files."""
        try_report_page(self.run, cost)

    def tidy(self) -> None:
        """Remove what the process video was made of: not before the run is finished, for until then it may be made again."""
        if self.run.process_video.exists():
            shutil.rmtree(self.run.process_frames, ignore_errors=True)

    def _report(self, gaussians: GaussianModel, lines: list[str], frames: list[Path]) -> None:
        shown = self._show(gaussians, six_views(self.config.camera))
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
        self._log.close()
