"""Numbers of density control and of the rasterizer: they add up, and stand in the report."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from gaussian_renderer import COUNTS
from tests.pinned import config_of
from tests.training.small_run import COST, run_in
from training.iterations import iterations
from training.report_page import write_report_page
from training.state import assemble
from training.summary import density_control, logged_numbers, summary, warn_if_invisible
from utils.interruption import Interruption


def test_every_gaussian_is_accounted_for() -> None:
    state = assemble(config_of("sds", "sphere"))
    before, counts = len(state.gaussians), state.counts
    assert density_control(counts) == []
    with torch.no_grad():
        state.gaussians._opacities[:7] = -9.0
    # Gaussians are added and removed after iteration 3, and iteration 4 renders what is left.
    *_, last = islice(iterations(state, Interruption()), 4)
    numbers = {name: float(value) for name, value in logged_numbers(state, last).items()}
    assert numbers["density/cloned"] + numbers["density/split"] > 0
    assert counts.pruned == numbers["density/pruned"] >= 7
    assert len(state.gaussians) == before + counts.cloned + counts.split - counts.pruned
    assert sum(numbers[f"rasterizer/{name}"] for name in COUNTS) == len(state.gaussians)
    assert f"{counts.pruned:,} pruned" in density_control(counts)[0]


def test_an_asset_that_nobody_can_see_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    state = assemble(config_of("sds", "sphere"))
    warn_if_invisible(state.gaussians)
    assert not caplog.messages
    state.counts.step, state.counts.seconds = 1, 1.0
    assert not any("invisible" in line for line in summary(state))
    with torch.no_grad():
        state.gaussians._opacities[:] = -20.0
    warn_if_invisible(state.gaussians)
    (message,) = caplog.messages
    assert message in summary(state)
    assert "its greatest opacity is 2.1e-09" in message


def test_the_report_has_what_happened_and_leaves_out_what_did_not(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    with SummaryWriter(str(run.root)) as writer:
        for name, value in {"density/split": 1234, "density/cloned": 0, "rasterizer/behind": 2.5}.items():
            writer.add_scalar(name, value, 10)
    write_report_page(run, COST)
    page = run.page.read_text()
    assert "<dt>split</dt><dd>1,234</dd>" in page
    assert "<dt>behind the camera</dt><dd>2.5</dd>" in page
    assert "cloned" not in page
