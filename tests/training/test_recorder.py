"""Files of a run on the way: the loop waits for neither device nor disk, and nothing is lost or mixed up."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import config as configuration
from config import Config
from gaussian_renderer import RenderOutput, showcase
from gaussian_renderer.showcase import show
from gaussian_renderer.training_views import TrainingViews
from guidance import GuidanceOutput
from scene.cameras import Cameras, orbit, six_views
from scene.gaussian_model import GaussianModel
from tests.changed import changed
from training import recorder
from training.recorder import Recorder
from utils.background import Background
from utils.device import HOST
from utils.media import to_uint8
from utils.run_folder import RunFolder

SIZE, STEPS = 16, 20
META = torch.device("meta")
"""Device whose tensors raise when their values are looked at."""


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Config:
    """Settings for 20 iterations: a frame after each, pictures every fourth, views and Gaussians every fifth."""
    monkeypatch.setattr(recorder, "TURNTABLE_FRAMES", 10)
    given = configuration.load(["--iterations", str(STEPS), "--text", "mug", "--test_ratio", "4"])
    small = {"image_w": SIZE, "image_h": SIZE, "vis_interval": 4, "save_ratio": 4}
    return changed(given, pro_frames_num=STEPS, save_video=True, **small)


def gaussians() -> GaussianModel:
    points, colors = torch.rand(2, 40, 3, generator=torch.Generator().manual_seed(0))
    return GaussianModel.from_points(points - 0.5, colors, 0)


def views_of(device: torch.device = HOST) -> tuple[TrainingViews, GuidanceOutput]:
    """Views of an iteration, and what a guidance found in them."""
    cameras = orbit([0.0, 90.0], 90.0, 3.0, 0.6, SIZE, SIZE)
    rgb, plane, latents = (torch.full((2, c, SIZE, SIZE), 0.5, device=device) for c in (3, 1, 4))
    out = RenderOutput(rgb, plane, plane, plane, plane, plane)
    guided = GuidanceOutput(latents.sum(), {}, {}, latents, {"x0": lambda: latents})
    seen = TrainingViews(
        cameras.to(device), out, plane, 1, geometry=False, mirrored=False, backgrounds=torch.zeros(2, 3)
    )
    return seen, guided


def go_on(record: Recorder, model: GaussianModel, after: Callable[[int], None] = lambda step: None) -> None:
    """Call the recorder as the loop does."""
    device = model.device
    for step in range(1, STEPS + 1):
        record.picture(step, *views_of(device))
        record.scalars(step, {"loss/x": torch.full((), float(step), device=device), "run/y": 2.0 * step})
        record.after_step(step, model)
        after(step)


@contextmanager
def held_back(record: Recorder) -> Iterator[None]:
    """Hold back the thread that writes."""
    gate = threading.Event()
    record._background.submit(gate.wait)
    try:
        yield
    finally:
        gate.set()


def pictures_in(run: RunFolder) -> set[str]:
    return {
        str(path.relative_to(run.root))
        for kind in ("png", "mp4", "ply")
        for path in run.root.rglob(f"*.{kind}")
    }


def expected_pictures() -> set[str]:
    saved = range(5, STEPS + 1, 5)
    names = {f"process_videos/frames/{index:05d}.png" for index in range(STEPS)}
    names |= {f"train_process/iteration_{step}.png" for step in (1, *range(4, STEPS + 1, 4))}
    names |= {
        f"test_six_views/{step}_iteration/view_{a:03d}.png" for step in saved for a in range(0, 360, 60)
    }
    names |= {
        f"videos/{step}_iteration/video_{kind}_{step}.mp4" for step in saved for kind in ("rgb", "depth")
    }
    return names | {f"point_cloud/iteration_{step}/point_cloud.ply" for step in saved}


def test_the_loop_goes_on_while_nothing_can_be_written_and_all_is_as_it_was_then(
    config: Config, tmp_path: Path
) -> None:
    run, model, decode = RunFolder(tmp_path), gaussians(), lambda z: z[:, :3]
    frames: list[np.ndarray] = []
    saved: dict[int, dict[str, Tensor]] = {}

    def update_in_place(step: int) -> None:
        cameras = record._process_cameras[step - 1 : step]
        frames.append(to_uint8(show(model, cameras, white=record.white).rgb[0]))
        saved[step] = {name: parameter.detach().clone() for name, parameter in model.raw().items()}
        with torch.no_grad():
            for parameter in model.raw().values():
                parameter.add_(0.05)

    with Recorder(config, run, decode) as record:
        with held_back(record):
            go_on(record, model, update_in_place)
            assert not pictures_in(run)
        record.drain()
        assert pictures_in(run) == expected_pictures()
    for index, frame in enumerate(frames):
        assert np.array_equal(np.asarray(Image.open(run.process_frame(index))), frame)
    assert not np.array_equal(frames[0], frames[-1])
    for step in range(5, STEPS + 1, 5):
        written = GaussianModel.load_ply(run.point_cloud(step)).raw()
        assert all(torch.equal(written[name], values) for name, values in saved[step].items())
    last = GaussianModel(saved[STEPS])
    views = show(last, six_views(config.camera), white=record.white).rgb
    for angle, view in zip(range(0, 360, 60), views):
        assert np.array_equal(np.asarray(Image.open(run.test_view(STEPS, angle))), to_uint8(view))


def test_the_log_is_complete_and_in_order(config: Config, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Recorder(config, RunFolder(tmp_path), lambda z: z[:, :3]) as record:
        go_on(record, gaussians())
        record.drain()
        # As after a kill: nothing has closed the log.
        events = EventAccumulator(str(tmp_path), size_guidance={"images": 0, "histograms": 0}).Reload()
    for name, factor in (("loss/x", 1), ("run/y", 2)):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [(step, factor * step) for step in range(1, STEPS + 1)]
    assert [event.step for event in events.Images("test/six_views")] == [5, 10, 15, 20]
    assert [event.step for event in events.Histograms("gaussians/scale")] == [5, 10, 15, 20]


def test_the_loop_looks_at_nothing_on_the_device(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Callable[[], None]] = []

    def rendered(model: GaussianModel, cameras: Cameras, background: Tensor, **_: object) -> RenderOutput:
        assert cameras.viewmats.device == background.device == META
        rgb, plane = (torch.empty(len(cameras), c, SIZE, SIZE, device=META) for c in (3, 1))
        return RenderOutput(rgb, plane, plane, plane, plane, plane)

    monkeypatch.setattr(showcase, "render", rendered)
    monkeypatch.setattr(Background, "submit", lambda self, job, holds=0: jobs.append(job))
    model = GaussianModel({name: tensor.to(META) for name, tensor in gaussians().raw().items()})
    with Recorder(config, RunFolder(tmp_path), lambda z: z[:, :3]) as record:
        go_on(record, model)
    # Scalars and a frame each time, 6 pictures, and 4 times the views, two videos and the Gaussians.
    assert len(jobs) == 2 * STEPS + 6 + 4 * 4
    for job in jobs:
        with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
            job()


def test_beyond_its_bound_the_loop_waits(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = 3 * SIZE * SIZE
    monkeypatch.setattr(recorder, "MOST_PENDING", 4 * frame)
    run, gate = RunFolder(tmp_path), threading.Event()
    with Recorder(changed(config, test_ratio=1, vis_interval=10**6), run, lambda z: z[:, :3]) as record:
        record._background.submit(gate.wait)
        opens = threading.Timer(0.2, gate.set)
        opens.start()
        model = gaussians()
        for step in range(1, STEPS):
            record.after_step(step, model)
            waiting = sum(not run.process_frame(index).exists() for index in range(step))
            assert waiting <= 4
        opens.join()


def test_what_the_disk_does_not_take_is_told_once_and_the_rest_is_written(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, image: Tensor) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(recorder, "write_png", full)
    run = RunFolder(tmp_path)
    with Recorder(config, run, lambda z: z[:, :3]) as record:
        go_on(record, gaussians())
    assert pictures_in(run) == {name for name in expected_pictures() if not name.endswith("png")}
    for what in ("A frame of the process video", "A training picture", "The test views"):
        told = f"{what} cannot be written (No space left on device): the run goes on without."
        assert caplog.text.count(told) == 1
    assert len(caplog.records) == 3


def test_pictures_of_what_is_not_finite_are_left_out_and_named(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One of a gradient, and what is due when a Gaussian is broken, which no view shows: the others are there."""
    run, (seen, guided) = RunFolder(tmp_path), views_of()
    broken = gaussians()
    broken.raw()["opacity"].data[0] = torch.nan
    with Recorder(config, run, lambda z: z[:, :3]) as record:
        record.picture(1, seen, replace(guided, gradient=guided.gradient * torch.nan))
        record.after_step(STEPS, broken)
        record.picture(2 * config.guidance.vis_interval, seen, guided)
    left_out = {message.partition(":")[0] for message in caplog.messages}
    of = {"A training picture": 1, "A histogram": STEPS, "The Gaussians on the way": STEPS}
    assert left_out == {f"{what} of iteration {step}" for what, step in of.items()}
    assert run.train_picture(2 * config.guidance.vis_interval).exists()
    assert not run.train_picture(1).exists()


def record_a_broken_job(config: Config, run: RunFolder, then: BaseException) -> None:
    def fail() -> None:
        raise ValueError("of the thread")

    with Recorder(config, run, lambda z: z[:, :3]) as record:
        record._background.submit(fail)
        raise then


def test_an_error_of_the_loop_is_not_hidden_by_one_of_the_thread(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(FloatingPointError, match="of the loop"):
        record_a_broken_job(config, RunFolder(tmp_path), FloatingPointError("of the loop"))
    assert "Besides, not all could be written: of the thread" in caplog.text


@pytest.mark.parametrize(("error", "written"), [(FloatingPointError, 4), (KeyboardInterrupt, 0)])
def test_what_an_error_leaves_is_written_but_ctrl_c_waits_for_nothing(
    config: Config, tmp_path: Path, error: type[BaseException], written: int, caplog: pytest.LogCaptureFixture
) -> None:
    run, begun, gate = RunFolder(tmp_path), threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        gate.wait(60)

    def break_off() -> None:
        with Recorder(config, run, lambda z: z[:, :3]) as record:
            record._background.submit(hold)
            begun.wait()
            for step in range(1, 5):
                record.after_step(step, gaussians())
            if written:
                gate.set()
            else:
                # What is held back goes on when the last job has been dropped.
                record._background._pending[-1][0].add_done_callback(lambda _: gate.set())
            raise error

    with pytest.raises(error):
        break_off()
    assert len(pictures_in(run)) == written
    assert not caplog.records
