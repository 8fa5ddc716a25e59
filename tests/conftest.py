"""Fixtures of the whole program."""

from __future__ import annotations

from pathlib import Path

import pytest

import config as configuration
from config import Config


@pytest.fixture(scope="session")
def tiny_prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny_diffusers import write_tiny_folder

    folder = tmp_path_factory.mktemp("prior")
    write_tiny_folder(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_settings(tiny_prior: Path) -> Config:
    """Ten iterations at 64²."""
    flags = "--quiet --fast false --lambda_tv_l1 0 --max_scale 0.018 --iterations 10 --init_shape sphere --init_num_pts 300 --image_w 64 --image_h 64 --vis_interval 5 --test_ratio 2"
    flags += (
        " --text mug --save_video --densify_from_iter 0 --densify_until_iter 8 --densification_interval 4"
    )
    return configuration.load([*flags.split(), "--model_key", str(tiny_prior)])


@pytest.fixture
def tiny_config(tiny_settings: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """`tiny_settings`, in a temporary folder to which runs go."""
    monkeypatch.chdir(tmp_path)
    return tiny_settings
