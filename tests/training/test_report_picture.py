"""The report's page holds its pictures and grows with its text."""

from __future__ import annotations

import torch

from training.report_picture import MARGIN, TILE, report_sheet
from utils.media import Row


def test_pictures_are_on_the_page() -> None:
    red = torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 40, 40)
    page = report_sheet("title", ["a line"], [Row("views", torch.stack([red, 1 - red]))])
    assert page.shape[0] == 3
    # The first tile's middle is red, the second's is its complement.
    row = page[:, :, MARGIN + TILE // 2]
    assert bool(((row[0] == 1) & (row[1] == 0)).any())
    row = page[:, :, MARGIN + TILE + TILE // 2]
    assert bool(((row[0] == 0) & (row[1] == 1)).any())


def test_every_line_makes_it_longer() -> None:
    rows = [Row("views", torch.zeros(1, 3, 8, 8))]
    heights = [report_sheet("title", ["line"] * n, rows).shape[1] for n in (1, 2, 3)]
    assert heights[0] < heights[1] < heights[2]
