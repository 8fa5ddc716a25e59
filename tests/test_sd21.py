"""The model of `sd21.py` has the size it claims, and goes through the whole program."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from iterations.sd21 import PARAMETERS, make_text_encoder, make_unet, make_vae
from scene.gaussian_model import GaussianModel
from tests import sd21

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("name", "make"),
    [("unet", make_unet), ("vae", make_vae), ("text_encoder", make_text_encoder)],
)
def test_parameter_counts(name: str, make: Callable[[], nn.Module]) -> None:
    with torch.device("meta"):
        network = make()
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[name]


@pytest.mark.slow
def test_three_iterations_of_training_at_full_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """train.py with bagel.yaml at 512² on the host: renders, encodes, five U-Net evaluations, update, files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    prior = sd21.write_sd21_folder(tmp_path / "prior", torch.float16)
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
    subprocess.run([sys.executable, str(ROOT / "train.py"), *flags], cwd=tmp_path, check=True)

    [root] = (tmp_path / "outputs" / "bagel").iterdir()
    assert not GaussianModel.load_ply(root / "save" / "asset.ply").nonfinite()
    events = EventAccumulator(str(root)).Reload()
    last = {name: events.Scalars(name)[-1].value for name in events.Tags()["scalars"]}
    assert last["grad_norm/xyz"] > 0
    assert last["guidance/unet_evals_per_view"] >= 4
    with capsys.disabled():
        speed, memory = last["run/iterations_per_second"], last["run/memory_GB"]
        print(
            f"\nSD 2.1-base, 512², 1 view, float32: {1 / speed:.0f} s per iteration, {memory:.1f} GB at most"
        )
