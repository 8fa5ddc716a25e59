"""A run that weighs its prior's poses: its bytes when it resumes, and what it logs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from config import Config, load
from tests.changed import changed
from tests.evaluation.published import TINY_CLIP, write_clip
from train import train
from utils.event_log import scalars_in


@pytest.fixture
def weighing(tiny_config: Config, tiny_prior: Path, tmp_path: Path) -> Config:
    clip = write_clip(tmp_path / "clip", TINY_CLIP)
    return changed(
        tiny_config,
        model_key=str(tiny_prior),
        pose_model_key=str(clip),
        rectify_poses=1.0,
        C_batch_size=2,
        iterations=4,
        densify_until_iter=0,
        as_latent_ratio=0.0,
        save_video=False,
        save_process=False,
        checkpoint_iterations=(2,),
    )


def test_a_run_that_resumes_makes_the_same_bytes(weighing: Config) -> None:
    whole = train(weighing)
    again = train(load(["--start_checkpoint", str(whole.run.checkpoints / "iteration_2.json"), "--quiet"]))
    for name, values in whole.gaussians.raw().items():
        assert torch.equal(again.gaussians.raw()[name], values), name
    logged = scalars_in(whole.run.root)
    shares = [logged[f"poses/{pose}"][4] for pose in ("front", "side", "back")]
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    assert shares != [0.25, 0.5, 0.25]
    assert logged["poses/entropy"][4] == pytest.approx(1.04, abs=0.02)
