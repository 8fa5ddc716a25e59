"""Runs that were cut off go on to the very result of one that was not."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg
import pytest
import torch
from torch import Tensor

import config as configuration
from config import Config
from gaussian_renderer.training_views import TrainingViews
from scene.cameras import Cameras
from scene.gaussian_model import ATTRIBUTES, GaussianModel
from scene.optimizer import GaussianOptimizer, Update
from tests.changed import changed
from train import Result, main, train
from training.keeper import checkpoint_to_resume
from utils import checkpoints
from utils.interruption import Interrupted
from utils.run_folder import RunFolder


class Killed(BaseException):
    """Stand-in for the end of a process."""


def the_run(outputs: Path) -> RunFolder:
    (file,) = outputs.rglob("config.yaml")
    return RunFolder(file.parent)


def resumption(run: RunFolder, *flags: str) -> Config:
    return configuration.load(["--resume", str(run.root), "--quiet", *flags])


@pytest.fixture(scope="module")
def settings(tiny_settings: Config) -> Config:
    """Ten iterations whose Gaussians are cloned, split, moved and dimmed, and whose steps are augmented."""
    keys = {"save_video": False, "image_w": 32, "image_h": 32, "C_batch_size": 2, "sh_degree": 1}
    keys |= {"flip_aug_ratio": 0.5, "as_latent_ratio": 0.3, "relocate_interval": 3, "raster_steps": 2}
    keys |= {"BEG": True, "start_reset_iter": 2, "end_reset_iter": 9, "lgt_thresh": 0.0}
    return changed(tiny_settings, densify_grad_threshold=1e-9, **keys)


@pytest.fixture
def config(settings: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """`settings`, in a temporary folder."""
    monkeypatch.chdir(tmp_path)
    return settings


@pytest.fixture(scope="module")
def whole(settings: Config, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run that nothing has cut off."""
    return train(settings, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def stopped(settings: Config, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run like `whole`, stopped after iteration 5, with checkpoints of iterations 4 and 5."""
    outputs = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Interrupted):
        train(changed(settings, checkpoint_iterations=(4,)), outputs, end_at(5, signal.SIGTERM))
    return the_run(outputs)


def copy_of(run: RunFolder, folder: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(run.root, folder)))


def end_at(
    step: int, signal_number: int | None = None, told: list[int] | None = None
) -> Callable[[int], None]:
    """Function for `on_step` that ends the run after iteration `step`, by a signal or at once, as a kill does."""

    def on_step(done: int) -> None:
        if told is not None:
            told.append(done)
        if done == step and signal_number is None:
            raise Killed
        if done == step:
            os.kill(os.getpid(), signal_number)

    return on_step


def files_of(run: RunFolder) -> set[str]:
    """Names of all but the log's and the checkpoints' files."""
    paths = {file.relative_to(run.root) for file in run.root.rglob("*") if file.is_file()}
    return {str(path) for path in paths if "tfevents" not in path.name and "checkpoints" not in path.parts}


def test_a_run_that_ends_early_again_and_again_ends_in_the_same_bytes(
    config: Config, whole: Result, tmp_path: Path
) -> None:
    """A kill loses what is younger than the last checkpoint, a signal nothing, and its message has the way on."""
    kills = (1, 3, 4, 6, 9)
    given, told = changed(config, checkpoint_iterations=kills), []
    with pytest.raises(Killed):
        train(given, tmp_path, end_at(1))
    cut = the_run(tmp_path)
    unfinished = cut.checkpoints / ".iteration_9.1.tmp.safetensors"
    for step, number in ((3, None), (4, None), (5, signal.SIGTERM), (6, None), (7, signal.SIGINT), (9, None)):
        unfinished.write_bytes(b"a process that was killed while it wrote")
        usual = number and signal.getsignal(number)
        with pytest.raises(Interrupted if number else Killed) as end:
            train(resumption(cut), on_step=end_at(step, number, told))
        assert not unfinished.exists()
        if number:
            assert end.value.number == number
            assert f"iteration {step}: python train.py --resume {cut.root}" in str(end.value)
            assert signal.getsignal(number) is usual
    resumed = train(resumption(cut), on_step=told.append)
    assert told == list(range(2, 11))
    assert resumed.run.root == cut.root
    assert resumed.run.asset.read_bytes() == whole.run.asset.read_bytes()
    assert resumed.cost.evaluations == pytest.approx(whole.cost.evaluations)
    assert files_of(cut) == files_of(whole.run)
    assert configuration.of_file(cut.config) == changed(
        configuration.of_file(whole.run.config), checkpoint_iterations=kills
    )


@pytest.mark.thorough
def test_a_kill_in_the_middle_of_writing_costs_that_checkpoint_only(
    config: Config, whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_digest_of", killed)
        with pytest.raises(Killed):
            train(changed(config, checkpoint_iterations=(2,)), tmp_path)
    cut = the_run(tmp_path)
    assert checkpoints.steps_in(cut.checkpoints) == []
    assert train(resumption(cut)).run.asset.read_bytes() == whole.run.asset.read_bytes()


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_the_checkpoint_before_a_damaged_one_is_used(
    whole: Result, stopped: RunFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert checkpoints.steps_in(stopped.checkpoints) == [4, 5]
    damages: dict[str, Callable[[Path], object]] = {
        "flipped": lambda file: flip(file, file.stat().st_size // 2),
        "cut": lambda file: file.write_bytes(file.read_bytes()[:-20]),
        "gone": Path.unlink,
    }
    for kind, damage in damages.items():
        for suffix in ("json", "safetensors"):
            cut = copy_of(stopped, tmp_path / f"{kind} {suffix}")
            damage(cut.checkpoints / f"iteration_5.{suffix}")
            caplog.clear()
            found = checkpoint_to_resume(cut, None)
            assert found is not None, cut
            assert found.step == 4, cut
            # Without its JSON file it is no checkpoint.
            assert ("iteration 5 cannot be used" in caplog.text) == ((kind, suffix) != ("gone", "json")), cut
    assert train(resumption(cut)).run.asset.read_bytes() == whole.run.asset.read_bytes()


def test_when_no_checkpoint_is_sound_the_run_says_so(
    stopped: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = copy_of(stopped, tmp_path / "cut")
    for file in cut.checkpoints.glob("*.json"):
        flip(file, 40)
    assert main(resumption(cut)) == 1
    assert "None of the checkpoints" in capsys.readouterr().err


def test_another_configuration_is_refused_unless_forced(
    stopped: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = copy_of(stopped, tmp_path / "cut")
    asked = ["--iterations", "6", "--guidance_scale", "9"]
    assert main(resumption(cut, *asked)) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "OptimizationParams.iterations 6 (was 10)" in error
    assert "GuidanceParams.guidance_scale 9 (was 7.5)" in error
    assert train(resumption(cut, *asked, "--force")).run.root == cut.root
    assert configuration.of_file(cut.config).optimization.iterations == 6


@pytest.mark.thorough
def test_other_weights_are_refused_unless_forced(stopped: RunFolder, tmp_path: Path) -> None:
    cut, step = copy_of(stopped, tmp_path / "cut"), 5
    found = checkpoints.load(cut.checkpoints, step)
    assert len(found.facts["prior"]) == 64
    checkpoints.save(
        cut.checkpoints, checkpoints.Checkpoint(step, found.tensors, {**found.facts, "prior": "other"})
    )
    with pytest.raises(ValueError, match="made with other weights"):
        train(resumption(cut))
    train(resumption(cut, "--force", "--iterations", "6"))


def test_a_checkpoint_by_name_goes_back_to_it(whole: Result, stopped: RunFolder, tmp_path: Path) -> None:
    cut = copy_of(stopped, tmp_path / "cut")
    told: list[int] = []
    asked = ["--start_checkpoint", str(cut.checkpoints / "iteration_4.safetensors"), "--quiet"]
    resumed = train(configuration.load(asked), on_step=told.append)
    assert told[0] == 5
    assert resumed.run.asset.read_bytes() == whole.run.asset.read_bytes()


def test_what_cannot_be_resumed_is_one_sentence(
    whole: Result, stopped: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(resumption(whole.run)) == 1
    assert "is finished" in capsys.readouterr().err
    with pytest.raises(configuration.ConfigError, match=r"holds no config\.yaml"):
        configuration.load(["--resume", str(tmp_path)])
    with pytest.raises(configuration.ConfigError, match=r"holds no config\.yaml"):
        configuration.load(["--opt", str(whole.run.config), "--resume", str(tmp_path / "nowhere")])
    with stopped.lock():
        assert main(resumption(stopped)) == 1
    assert "still going" in capsys.readouterr().err


def test_a_run_that_cannot_begin_leaves_no_folder(config: Config, tmp_path: Path) -> None:
    assert main(changed(config, model_key="/nowhere/at/all")) == 1
    assert not list(tmp_path.rglob("mug-*"))


@pytest.mark.thorough
def test_a_run_that_is_cut_off_before_its_last_file_keeps_its_process_video(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise Killed

    config = changed(config, iterations=5, pro_frames_num=4, checkpoint_iterations=(3,))
    with monkeypatch.context() as patch:
        patch.setattr("train.RunCost.write", killed)
        with pytest.raises(Killed):
            train(config, tmp_path)
    run = train(resumption(the_run(tmp_path))).run
    assert imageio_ffmpeg.count_frames_and_secs(str(run.process_video))[0] == 4
    assert not run.process_frames.exists()


def test_a_checkpoint_comes_after_all_that_was_made_before_it(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from training import recorder

    saved, written = checkpoints.save, recorder.write_png
    found: dict[int, tuple[int, list[int]]] = {}

    def slow(*given: object) -> None:
        time.sleep(0.02)
        written(*given)

    def save(folder: Path, checkpoint: checkpoints.Checkpoint) -> None:
        log = EventAccumulator(str(folder.parent)).Reload()
        pictures = [event.step for event in log.Images("train/views")]
        found[checkpoint.step] = len(list(folder.parent.rglob("frames/*.png"))), pictures
        saved(folder, checkpoint)

    monkeypatch.setattr(recorder, "write_png", slow)
    monkeypatch.setattr(checkpoints, "save", save)
    keys = {"iterations": 7, "checkpoint_iterations": (1, 3, 6), "densify_until_iter": 0, "vis_interval": 3}
    run = train(changed(config, **keys), tmp_path).run
    assert found == {1: (1, [1]), 3: (3, [1, 3]), 6: (6, [1, 3, 6])}
    # The last two stay, of two files each.
    assert checkpoints.steps_in(run.checkpoints) == [3, 6]
    assert len(list(run.checkpoints.iterdir())) == 4


def test_a_gradient_that_is_not_finite_costs_its_iteration_only(
    config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each group's once, in iterations of their own."""
    original, broken = GaussianOptimizer.step, dict(enumerate(ATTRIBUTES, 2))

    def step(self: GaussianOptimizer, number: int) -> Update:
        group = broken.get(number)
        if group is None:
            return original(self, number)
        before = self.model.state_dict()
        self.model.raw()[group].grad[0] = float("nan")
        update = original(self, number)
        assert all(torch.equal(before[name], value) for name, value in self.model.state_dict().items()), group
        assert [name for name, norm in update.gradients.items() if not norm.isfinite()] == [group]
        return update

    monkeypatch.setattr(GaussianOptimizer, "step", step)
    result = train(changed(config, guidance_type="sds", iterations=len(ATTRIBUTES) + 2))
    for number, group in broken.items():
        assert f"The gradient of {group} is not finite at iteration {number} (mean t " in caplog.text
    assert not result.gaussians.nonfinite()


def test_ten_bad_gradients_in_a_row_stop_the_run_with_a_sound_checkpoint(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import guidance.guide

    original, calls = guidance.guide.surrogate_loss, []

    def broken(z0: Tensor, gradient: Tensor) -> Tensor:
        calls.append(None)
        return original(z0, gradient / 0 if len(calls) > 3 else gradient)

    monkeypatch.setattr(guidance.guide, "surrogate_loss", broken)
    assert main(changed(config, guidance_type="sds", iterations=20)) == 1
    error = capsys.readouterr().err
    assert "xyz" in error
    assert "iteration 13" in error
    assert "9 iterations before it" in error
    assert "--resume" in error
    (root,) = Path().rglob("config.yaml")
    found = checkpoints.load_last(RunFolder(root.parent).checkpoints)
    assert found is not None
    assert all(bool(torch.isfinite(value.float()).all()) for value in found.tensors.values())


def test_views_that_do_not_fit_into_memory_are_halved_once_and_for_all(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from training import step as stepping

    original, seen = stepping.training_views, []

    def cramped(gaussians: GaussianModel, cameras: Cameras, *rest: object) -> TrainingViews:
        if len(cameras) > 2:
            raise torch.OutOfMemoryError
        seen.append(len(cameras))
        return original(gaussians, cameras, *rest)

    monkeypatch.setattr(stepping, "training_views", cramped)
    result = train(changed(config, guidance_type="sds", C_batch_size=5, iterations=3, raster_steps=1))
    assert not result.gaussians.nonfinite()
    assert set(seen) <= {1, 2}
    assert sum(seen) == 5 * 3
    assert (
        caplog.text.count("Out of memory at iteration 1: from here on 3 views at a time, in place of 5.") == 1
    )
    assert caplog.text.count("Out of memory") == 2


def test_density_control_makes_no_more_than_it_may(config: Config, whole: Result) -> None:
    capped = train(changed(config, max_num_gaussians=310)).gaussians
    assert len(whole.gaussians) > 310
    assert 300 < len(capped) <= 310


def test_one_view_at_a_time_where_memory_is_precious(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    from training import step as stepping

    original, seen = stepping.training_views, []

    def counted(gaussians: GaussianModel, cameras: Cameras, *rest: object) -> TrainingViews:
        seen.append(len(cameras))
        return original(gaussians, cameras, *rest)

    monkeypatch.setattr(stepping, "training_views", counted)
    train(changed(config, vram_O=True, C_batch_size=3, iterations=2, raster_steps=1))
    assert seen == [1] * 6


def test_memory_that_does_not_hold_one_view_is_one_sentence(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from training import step as stepping

    original, calls = stepping.training_views, []

    def cramped(*given: object) -> TrainingViews:
        calls.append(None)
        if len(calls) > 4:
            raise torch.OutOfMemoryError
        return original(*given)

    monkeypatch.setattr(stepping, "training_views", cramped)
    assert main(changed(config, C_batch_size=2, raster_steps=1, checkpoint_iterations=(3,))) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "Out of memory at iteration 5. To go on from iteration 3: python train.py --resume" in error


def test_whatever_ends_a_run_leaves_the_last_whole_iteration(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error between iterations keeps them all; one in the middle of density control keeps nothing of that iteration."""

    def fail(done: int) -> None:
        if done == 4:
            raise RuntimeError("of a picture")

    with pytest.raises(RuntimeError, match="of a picture"):
        train(config, tmp_path / "between", fail)
    run = the_run(tmp_path / "between")
    assert checkpoints.steps_in(run.checkpoints)[-1] == 4
    assert f"To go on from iteration 4: python train.py --resume {run.root}" in caplog.text

    def half(optimizer: GaussianOptimizer, *rest: object) -> None:
        optimizer.keep(torch.arange(len(optimizer.model)) % 2 == 0)
        raise RuntimeError("of density control")

    monkeypatch.setattr("training.step.refine", half)
    with pytest.raises(RuntimeError, match="of density control"):
        train(changed(config, checkpoint_iterations=(1,)), tmp_path / "within")
    (step,) = checkpoints.steps_in(the_run(tmp_path / "within").checkpoints)[-1:]
    found = checkpoints.load_last(the_run(tmp_path / "within").checkpoints)
    assert found is not None
    assert f"To go on from iteration {step}: python train.py --resume" in caplog.text
    assert len(found.tensors["gaussians/xyz"]) == 300


def test_ctrl_c_before_the_first_iteration_is_one_sentence(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("train.begin", interrupted)
    assert main(config) == 130
    assert capsys.readouterr().err == "train.py: stopped outside of the iterations.\n"
    assert not list(tmp_path.rglob("mug-*"))
