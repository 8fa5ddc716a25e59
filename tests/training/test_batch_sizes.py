"""Batch sizes of the U-Net, counted before a run, against those of the run."""

from __future__ import annotations

from collections import Counter

import pytest
from torch import Tensor

from config import Config
from tests.changed import changed
from training.batch_sizes import batch_shares
from training.state import assemble
from training.step import training_step


@pytest.mark.parametrize(
    ("keys", "at_once"), [({}, None), ({"guidance_type": "ism"}, 3), ({"approximate": False}, None)], ids=str
)
def test_a_run_asks_for_what_was_counted(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, keys: dict[str, object], at_once: int | None
) -> None:
    """Counts hold in every iteration, with Perp-Neg and views in parts too, but for differentiated calls."""
    config = changed(
        tiny_config, C_batch_size=4, image_w=16, image_h=16, iterations=8, init_num_pts=50, **keys
    )
    state = assemble(config)
    state.counts.views_at_once = at_once
    asked: Counter[int] = Counter()
    denoise = state.prior._denoise

    def noted(z: Tensor, *rest: Tensor) -> Tensor:
        asked[len(z)] += 1
        return denoise(z, *rest)

    monkeypatch.setattr(state.prior, "_denoise", noted)
    for step in range(1, config.optimization.iterations + 1):
        training_step(state, step)
    total = sum(asked.values())
    expected = {size: count / total for size, count in sorted(asked.items())}
    assert batch_shares(config, state.prior, range(4), at_once or 4) == expected
    assert len(expected) > 2
