from __future__ import annotations

import knn
import pytest
import torch

from simple_knn._C import distCUDA2


@pytest.mark.parametrize("name", knn.clouds(50))
def test_both_lines_compute_the_same(name: str) -> None:
    points = torch.from_numpy(knn.clouds(2000)[name]).float()
    torch.testing.assert_close(knn.peer(points), distCUDA2(points))
