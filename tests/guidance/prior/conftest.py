"""Fixtures that tests of priors share: a tiny Stable Diffusion as a folder, and as a single file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ldm import write_single_file
from tests.tiny_diffusers import write_index, write_tiny_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in diffusers layout, with its index."""
    path = write_tiny_folder(tmp_path_factory.mktemp("tiny"))
    write_index(path)
    return path


@pytest.fixture(scope="module")
def single(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File with all of the folder's networks."""
    return write_single_file(folder, tmp_path_factory.mktemp("single") / "whole.safetensors")
