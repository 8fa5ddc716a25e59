"""Stable Diffusion 2.1-base at its true size goes through the whole program."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scene.gaussian_model import GaussianModel
from tests.stable_diffusions import SD21_BASE, write_folder

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "latents",
    [pytest.param(16, marks=pytest.mark.thorough), pytest.param(64, marks=pytest.mark.full_size)],
    ids=["128²", "512²"],
)
def test_three_iterations_of_training_at_full_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], latents: int
) -> None:
    """Runs of train.py with bagel.yaml on the host: renders at 512², encodes, five U-Net evaluations, update, files.

    Every weight is of the true size whatever the latents' is; on small ones the U-Net takes seconds.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    prior = write_folder(SD21_BASE, tmp_path / "prior", sample_size=latents)
    flags = [
        "--opt",
        str(ROOT / "config" / "bagel.yaml"),
        "--model_key",
        str(prior),
        "--device",
        "cpu",
        "--quiet",
    ]
    flags += ["--pointe_model", "toybox", "--init_prompt", "a yellow car"]
    flags += ["--iterations", "3", "--C_batch_size", "1", "--init_num_pts", "20000"]
    flags += ["--test_ratio", "1", "--save_video", "false", "--save_process", "false"]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    try:
        subprocess.run(
            [sys.executable, str(ROOT / "train.py"), *flags], cwd=tmp_path, check=True, env=offline
        )
    finally:
        shutil.rmtree(prior)  # gigabytes, which pytest would keep

    [root] = (tmp_path / "outputs" / "bagel").iterdir()
    assert not GaussianModel.load_ply(root / "save" / "asset.ply").nonfinite()
    events = EventAccumulator(str(root)).Reload()
    last = {name: events.Scalars(name)[-1].value for name in events.Tags()["scalars"]}
    assert last["grad_norm/xyz"] > 0
    assert last["guidance/unet_evals_per_view"] >= 4
    with capsys.disabled():
        speed, memory = last["run/iterations_per_second"], last["run/memory_GB"]
        print(
            f"\nSD 2.1-base, {8 * latents}², 1 view, float32: {1 / speed:.0f} s per iteration, {memory:.1f} GB at most"
        )
