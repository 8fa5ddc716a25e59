"""The picture of the training curves."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from toybox.lab.curves import read
from utils.curves import smoothed, svg


def log(folder: Path, name: str, tag: str, points: list[tuple[int, float]]) -> None:
    with SummaryWriter(str(folder / "logs" / name)) as writer:
        for step, value in points:
            writer.add_scalar(f"{name}/{tag}", value, step)


def test_every_part_that_was_trained_is_drawn(tmp_path: Path) -> None:
    log(tmp_path, "vae", "psnr", [(step, 10 + step / 10) for step in range(0, 200, 50)])
    log(tmp_path, "unet", "loss", [(step, 1 / (1 + step)) for step in range(0, 200, 50)])
    curves = read(tmp_path)
    assert [len(curve.steps) for curve in curves] == [4, 4]
    picture = ElementTree.fromstring(svg(curves))
    lines = [
        element.get("points", "").split() for element in picture.iter() if element.tag.endswith("polyline")
    ]
    assert [len(line) for line in lines] == [4, 4]
    # Down in a picture is up in numbers: PSNR rises and the loss falls.
    rising, falling = ([float(point.split(",")[1]) for point in line] for line in lines)
    assert rising == sorted(rising, reverse=True)
    assert falling == sorted(falling)


def test_what_a_resumed_run_logs_again_counts_once(tmp_path: Path) -> None:
    log(tmp_path, "judge", "accuracy", [(0, 0.1), (50, 0.2), (100, 0.3)])
    log(tmp_path, "judge", "accuracy", [(50, 0.25), (100, 0.35)])
    [curve] = read(tmp_path)
    assert curve.steps.tolist() == [0, 50, 100]


def test_the_smoothing_is_a_median() -> None:
    values = np.arange(100.0)
    values[50] = 1e6
    assert smoothed(values)[50] < 100


def test_a_folder_without_logs_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no training logs"):
        read(tmp_path)
