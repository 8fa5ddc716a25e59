"""Runs that were cut off go on to the very result of one that was not."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg
import pytest
import torch

import config as configuration
from config import Config
from gaussian_renderer.training_views import TrainingViews
from scene.cameras import Cameras
from scene.gaussian_model import GaussianModel
from scene.optimizer import GaussianOptimizer, Update
from tests.changed import changed
from train import main, train
from utils import checkpoints
from utils.interruption import Interrupted
from utils.run_folder import RunFolder


class Killed(BaseException):
    """Stand-in for the end of a process."""


def kill_at(step: int) -> Callable[[int], None]:
    def on_step(done: int) -> None:
        if done == step:
            raise Killed

    return on_step


def the_run(outputs: Path) -> RunFolder:
    (file,) = outputs.rglob("config.yaml")
    return RunFolder(file.parent)


@pytest.fixture
def config(tiny_config: Config) -> Config:
    """Ten iterations whose Gaussians are cloned, split, moved and dimmed, and whose steps are augmented."""
    keys = {
        "save_video": False,
        "relocate_interval": 3,
        "sh_degree": 1,
        "flip_aug_ratio": 0.5,
        "as_latent_ratio": 0.3,
    }
    keys |= {
        "BEG": True,
        "start_reset_iter": 2,
        "end_reset_iter": 9,
        "lgt_thresh": 0.0,
        "densify_grad_threshold": 1e-9,
    }
    return changed(tiny_config, **keys)


@pytest.mark.parametrize("done", [1, 3, 4, 6, 9])
def test_a_resumed_run_ends_in_the_same_bytes(config: Config, tmp_path: Path, done: int) -> None:
    whole = train(config, tmp_path / "whole")
    with pytest.raises(Killed):
        train(changed(config, checkpoint_iterations=(done,)), tmp_path / "cut", kill_at(done))
    cut = the_run(tmp_path / "cut")
    told: list[int] = []
    begun = cut.checkpoints / ".iteration_9.1.tmp.safetensors"
    begun.write_bytes(b"a process that was killed while it wrote")
    resumed = train(configuration.load(["--resume", str(cut.root), "--quiet"]), on_step=told.append)
    assert not begun.exists()
    assert told == list(range(done + 1, 11))
    assert resumed.run.root == cut.root
    assert resumed.run.asset.read_bytes() == whole.run.asset.read_bytes()
    assert resumed.cost.evaluations == pytest.approx(whole.cost.evaluations)
    files = [
        {
            str(f.relative_to(run.root))
            for f in run.root.rglob("*")
            if f.is_file() and "tfevents" not in f.name and "checkpoints" not in f.parts
        }
        for run in (whole.run, cut)
    ]
    assert files[0] == files[1]
    assert changed(configuration.of_file(cut.config), checkpoint_iterations=()) == configuration.of_file(
        whole.run.config
    )


def test_a_kill_in_the_middle_of_writing_costs_that_checkpoint_only(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(config, tmp_path / "whole")

    def killed(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(checkpoints, "_digest_of", killed)
    with pytest.raises(Killed):
        train(changed(config, checkpoint_iterations=(2,)), tmp_path / "cut")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    cut = the_run(tmp_path / "cut")
    assert checkpoints.steps_in(cut.checkpoints) == []
    resumed = train(configuration.load(["--resume", str(cut.root), "--quiet"]))
    assert resumed.run.asset.read_bytes() == whole.run.asset.read_bytes()


def interrupt(number: int, step: int) -> Callable[[int], None]:
    def on_step(done: int) -> None:
        if done == step:
            os.kill(os.getpid(), number)

    return on_step


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_keeps_the_run_and_says_how_to_go_on(config: Config, tmp_path: Path, number: int) -> None:
    whole = train(config, tmp_path / "whole")
    usual = signal.getsignal(number)
    with pytest.raises(Interrupted) as stop:
        train(config, tmp_path / "cut", interrupt(number, 5))
    assert stop.value.number == number
    assert signal.getsignal(number) is usual
    cut = the_run(tmp_path / "cut")
    assert f"iteration 5: python train.py --resume {cut.root}" in str(stop.value)
    resumed = train(configuration.load(["--resume", str(cut.root), "--quiet"]))
    assert resumed.run.asset.read_bytes() == whole.run.asset.read_bytes()


def stopped(config: Config, outputs: Path, step: int = 5) -> RunFolder:
    with pytest.raises(Interrupted):
        train(config, outputs, interrupt(signal.SIGTERM, step))
    return the_run(outputs)


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["flipped", "cut", "flipped facts", "cut facts", "gone"])
def test_the_checkpoint_before_a_damaged_one_is_used(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    whole = train(config, tmp_path / "whole")
    cut = stopped(changed(config, checkpoint_iterations=(4,)), tmp_path / "cut")
    assert checkpoints.steps_in(cut.checkpoints) == [4, 5]
    file = cut.checkpoints / ("iteration_5.json" if "facts" in damage else "iteration_5.safetensors")
    if damage == "gone":
        file.unlink()
    elif "cut" in damage:
        file.write_bytes(file.read_bytes()[:-20])
    else:
        flip(file, file.stat().st_size // 2)
    resumed = train(configuration.load(["--resume", str(cut.root), "--quiet"]))
    assert "iteration 5 cannot be used" in caplog.text
    assert resumed.run.asset.read_bytes() == whole.run.asset.read_bytes()


def test_when_no_checkpoint_is_sound_the_run_says_so(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = stopped(config, tmp_path)
    for file in cut.checkpoints.glob("*.json"):
        flip(file, 40)
    assert main(configuration.load(["--resume", str(cut.root), "--quiet"])) == 1
    assert "None of the checkpoints" in capsys.readouterr().err


def test_another_configuration_is_refused_unless_forced(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = stopped(config, tmp_path)
    asked = ["--resume", str(cut.root), "--quiet", "--iterations", "12", "--guidance_scale", "9"]
    assert main(configuration.load(asked)) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "OptimizationParams.iterations 12 (was 10)" in error
    assert "GuidanceParams.guidance_scale 9 (was 7.5)" in error
    assert train(configuration.load([*asked, "--force"])).run.root == cut.root
    assert configuration.of_file(cut.config).optimization.iterations == 12


def test_other_weights_are_refused_unless_forced(config: Config, tmp_path: Path) -> None:
    cut = stopped(config, tmp_path)
    step = 5
    found = checkpoints.load(cut.checkpoints, step)
    assert len(found.facts["prior"]) == 64
    checkpoints.save(
        cut.checkpoints, checkpoints.Checkpoint(step, found.tensors, {**found.facts, "prior": "other"})
    )
    asked = ["--resume", str(cut.root), "--quiet"]
    with pytest.raises(ValueError, match="made with other weights"):
        train(configuration.load(asked))
    train(configuration.load([*asked, "--force"]))


def test_a_checkpoint_by_name_goes_back_to_it(config: Config, tmp_path: Path) -> None:
    whole = train(config, tmp_path / "whole")
    cut = stopped(changed(config, checkpoint_iterations=(4,)), tmp_path / "cut")
    told: list[int] = []
    asked = ["--start_checkpoint", str(cut.checkpoints / "iteration_4.safetensors"), "--quiet"]
    resumed = train(configuration.load(asked), on_step=told.append)
    assert told[0] == 5
    assert resumed.run.asset.read_bytes() == whole.run.asset.read_bytes()


def test_what_cannot_be_resumed_is_one_sentence(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = train(config, tmp_path / "whole").run.root
    assert main(configuration.load(["--resume", str(finished), "--quiet"])) == 1
    assert "is finished" in capsys.readouterr().err
    with pytest.raises(configuration.ConfigError, match=r"holds no config\.yaml"):
        configuration.load(["--resume", str(tmp_path)])
    with pytest.raises(configuration.ConfigError, match=r"holds no config\.yaml"):
        configuration.load(["--opt", str(finished / "config.yaml"), "--resume", str(tmp_path / "nowhere")])
    cut = stopped(config, tmp_path / "cut")
    with cut.lock():
        assert main(configuration.load(["--resume", str(cut.root), "--quiet"])) == 1
    assert "still going" in capsys.readouterr().err


def test_a_run_that_cannot_begin_leaves_no_folder(config: Config, tmp_path: Path) -> None:
    assert main(changed(config, model_key="/nowhere/at/all")) == 1
    assert not list(tmp_path.rglob("mug-*"))


def test_a_run_that_is_cut_off_before_its_last_file_keeps_its_process_video(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise Killed

    config = changed(config, pro_frames_num=6, checkpoint_iterations=(7,))
    with monkeypatch.context() as patch:
        patch.setattr("train.RunCost.write", killed)
        with pytest.raises(Killed):
            train(config, tmp_path)
    run = train(configuration.load(["--resume", str(the_run(tmp_path).root), "--quiet"])).run
    assert imageio_ffmpeg.count_frames_and_secs(str(run.process_video))[0] == 6
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
    train(changed(config, checkpoint_iterations=(3, 7), densify_until_iter=0, vis_interval=3), tmp_path)
    assert found == {3: (3, [1, 3]), 7: (7, [1, 3, 6])}


def test_only_the_last_two_checkpoints_stay(config: Config, tmp_path: Path) -> None:
    run = train(changed(config, checkpoint_iterations=(1, 2, 5, 9)), tmp_path).run
    # Gaussians grow after iteration 8.
    assert checkpoints.steps_in(run.checkpoints) == [5, 9]
    assert len(list(run.checkpoints.iterdir())) == 4


@pytest.mark.parametrize("group", ["xyz", "f_dc", "f_rest", "opacity", "scaling", "rotation"])
def test_a_gradient_that_is_not_finite_costs_its_iteration_only(
    config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, group: str
) -> None:
    original, done = GaussianOptimizer.step, []

    def step(self: GaussianOptimizer, number: int) -> Update:
        if number == 5:
            before = self.model.state_dict()
            self.model.raw()[group].grad[0] = float("nan")
            update = original(self, number)
            assert all(torch.equal(before[name], value) for name, value in self.model.state_dict().items())
            done.append([name for name, norm in update.gradients.items() if not norm.isfinite()])
            return update
        return original(self, number)

    monkeypatch.setattr(GaussianOptimizer, "step", step)
    result = train(config)
    assert done == [[group]]
    assert f"The gradient of {group} is not finite at iteration 5 (mean t " in caplog.text
    assert not result.gaussians.nonfinite()


def test_ten_bad_gradients_in_a_row_stop_the_run_with_a_sound_checkpoint(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import guidance.guide

    original, calls = guidance.guide.surrogate_loss, []

    def broken(z0: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        calls.append(None)
        return original(z0, gradient / 0 if len(calls) > 3 else gradient)

    monkeypatch.setattr(guidance.guide, "surrogate_loss", broken)
    assert main(changed(config, iterations=20)) == 1
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
    result = train(changed(config, C_batch_size=5))
    assert not result.gaussians.nonfinite()
    assert set(seen) <= {1, 2}
    assert sum(seen) == 5 * config.optimization.iterations
    assert (
        caplog.text.count("Out of memory at iteration 1: from here on 3 views at a time, in place of 5.") == 1
    )
    assert caplog.text.count("Out of memory") == 2


def test_density_control_makes_no_more_than_it_may(config: Config) -> None:
    free = train(config).gaussians
    capped = train(changed(config, max_num_gaussians=310)).gaussians
    assert len(free) > 310
    assert 300 < len(capped) <= 310


def test_one_view_at_a_time_where_memory_is_precious(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    from training import step as stepping

    original, seen = stepping.training_views, []

    def counted(gaussians: GaussianModel, cameras: Cameras, *rest: object) -> TrainingViews:
        seen.append(len(cameras))
        return original(gaussians, cameras, *rest)

    monkeypatch.setattr(stepping, "training_views", counted)
    train(changed(config, vram_O=True, C_batch_size=3, iterations=2))
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
    assert main(changed(config, C_batch_size=2, checkpoint_iterations=(3,))) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "Out of memory at iteration 5. To go on from iteration 3: python train.py --resume" in error


def test_ctrl_c_before_the_first_iteration_is_one_sentence(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("train.begin", interrupted)
    assert main(config) == 130
    assert capsys.readouterr().err == "train.py: stopped outside of the iterations.\n"
    assert not list(tmp_path.rglob("mug-*"))
