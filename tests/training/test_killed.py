"""SIGKILL at any moment costs the time since the last checkpoint, SIGTERM and Ctrl-C nothing: the run goes on to the very
same asset."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

import train
from tests import killed
from utils.files import UNFINISHED
from utils.run_folder import RunFolder

SLOW, THOROUGH = pytest.mark.slow, pytest.mark.thorough
# A tiny Stable Diffusion, for whatever its size it is files, and the random numbers between them, that a kill tears.
FLAGS = "--fast false --text mug --iterations 24 --C_batch_size 1 --init_num_pts 800 --image_w 64 --image_h 64 --vis_interval 8 --test_ratio 2 --init_shape sphere"
FLAGS += " --checkpoint_iterations 4 8 12 16 20 --save_video false --pro_frames_num 8 --densify_until_iter 20"
FLAGS += " --densification_interval 6 --densify_from_iter 0 --densify_grad_threshold 1e-9"

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def flags(tiny_prior: Path) -> list[str]:
    return [*FLAGS.split(), "--model_key", str(tiny_prior)]


@pytest.fixture(scope="module")
def start() -> Callable[..., ForkServerProcess]:
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.killed"])

    def start(task: Callable[..., None], *given: object) -> ForkServerProcess:
        process = context.Process(target=task, args=given)
        process.start()
        return process

    start(print).join()  # the imports are not to count as a part of the first run
    return start


def asset_under(outputs: Path) -> bytes:
    (asset,) = outputs.rglob("asset.ply")
    return asset.read_bytes()


@pytest.mark.parametrize("kills", [pytest.param(5, marks=SLOW), pytest.param(50, marks=THOROUGH)])
def test_any_kill_ends_in_the_same_asset(
    start: Callable[..., ForkServerProcess], flags: list[str], tmp_path: Path, kills: int
) -> None:
    whole = tmp_path / "whole"
    hears, tells = get_context("forkserver").Pipe(duplex=False)
    began = time.monotonic()
    start(killed.files_of, flags, str(whole), tells.send).join()
    lasts, files = time.monotonic() - began, hears.recv()
    expected, chance = asset_under(whole), random.Random(0)
    resumed_from = set()
    for number in range(kills):
        outputs = tmp_path / str(number)
        if number % 2:
            place = (chance.randrange(1, files + 1), chance.randrange(len(killed.PLACES)))
            process = start(killed.run, flags, str(outputs), place)
            what = f"file {place[0]}, {killed.PLACES[place[1]]}"
            process.join()
        else:
            process, moment = start(killed.run, flags, str(outputs)), chance.uniform(0, lasts)
            what = f"after {moment:.2f} s"
            process.join(moment)
            process.kill()
            process.join()
        assert process.exitcode in (0, -signal.SIGKILL), what
        if process.exitcode == 0 or not list(outputs.rglob("result.json")):
            folders = [file.parent for file in outputs.rglob("config.yaml")]
            if process.exitcode != 0:
                # Before there is a run, there is nothing to go on with.
                again = ["--resume", str(folders[0])] if folders else flags
                if folders:
                    resumed_from.add(max([0, *steps_in(folders[0])]))
                process = start(killed.run, again, str(outputs))
                process.join()
                assert process.exitcode == 0, what
                assert not list(outputs.rglob(UNFINISHED)), what
        assert asset_under(outputs) == expected, what
    # They have died early and late.
    assert len(resumed_from) >= min(4, kills // 4)


@pytest.mark.parametrize(
    ("number", "times"),
    [
        pytest.param(signal.SIGTERM, 3, marks=SLOW),
        pytest.param(signal.SIGTERM, 8, marks=THOROUGH),
        pytest.param(signal.SIGINT, 8, marks=THOROUGH),
    ],
)
def test_signals_at_any_moment_exit_as_is_usual_and_lose_no_iteration(
    start: Callable[..., ForkServerProcess],
    flags: list[str],
    tmp_path: Path,
    number: signal.Signals,
    times: int,
) -> None:
    whole = tmp_path / "whole"
    began = time.monotonic()
    start(killed.command, flags, str(whole)).join()
    lasts, chance, resumed = time.monotonic() - began, random.Random(0), 0
    expected = asset_under(whole)
    for index in range(times):
        outputs = tmp_path / str(index)
        process = start(killed.command, flags, str(outputs))
        if index % 2 or times < 4:  # among its iterations
            while not list(outputs.rglob("iteration_4.json")) and process.is_alive():
                time.sleep(0.01)
            moment = chance.uniform(0, lasts / 10)
        else:
            moment = chance.uniform(0, lasts)
        process.join(moment)
        with suppress(ProcessLookupError):  # it may be done
            os.kill(process.pid, number)
        process.join()
        # Before there is a run, SIGTERM acts as it does by default.
        assert process.exitcode in (0, 128 + number, -number), moment
        if list(outputs.rglob("*.safetensors")) and not list(outputs.rglob("result.json")):
            [folder] = [file.parent for file in outputs.rglob("config.yaml")]
            done = max(steps_in(folder))
            process = start(killed.run, ["--resume", str(folder)], str(outputs))
            process.join()
            assert process.exitcode == 0, moment
            resumed += done % 4 != 0  # not one of the checkpoints that it would have written anyway
        if list(outputs.rglob("asset.ply")):
            assert asset_under(outputs) == expected, moment
    assert resumed >= min(2, times // 2)


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=SLOW), pytest.param(signal.SIGTERM, marks=THOROUGH)]
)
def test_the_command_itself_says_in_one_sentence_how_to_go_on(
    flags: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    """Signals reach the real process from the shell's side, at its start and in its iterations."""
    command = [sys.executable, str(Path(train.__file__)), *flags, "--iterations", "100000", "--quiet"]
    for begun in (False, True):
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=ONE_THREAD)
        if begun:
            # Any of them: the older ones go while this process sleeps.
            while not list(tmp_path.rglob("iteration_*.safetensors")) and process.poll() is None:
                time.sleep(0.1)
        else:
            time.sleep(1)
        process.send_signal(number)
        said = process.communicate()[1]
        assert "Traceback" not in said
        assert process.returncode in ((128 + number,) if begun else (-number, 128 + number)), said
    assert "python train.py --resume outputs" in said.splitlines()[-1]


def steps_in(root: Path) -> list[int]:
    from utils import checkpoints

    return checkpoints.steps_in(RunFolder(root).checkpoints)
