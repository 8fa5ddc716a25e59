"""The counter of the host's work, against a count by hand, and its table of an iteration."""

from __future__ import annotations

import json
from pathlib import Path

import host as script
import pytest
import torch

from config import Config
from iterations.host_parts import (
    BACKWARD,
    BACKWARD_ENCODER,
    DECODER,
    DENSITY,
    NETWORKS,
    OPTIMIZER,
    OUTSIDE,
    RENDER,
)
from iterations.launches import Counts, Launches
from iterations.null_device import NULL
from tests.changed import changed
from training.state import assemble

MOST_LAUNCHES = 285
"""Launches of an SCTD iteration with CFG and 4 views, outside of the networks: a few more than there are."""


def test_known_operations_are_counted_in_their_parts() -> None:
    launches = Launches(NULL)
    host = torch.ones(3)
    with launches, launches.of("forward"):
        leaf = torch.empty(3, device=NULL).requires_grad_()  # fresh, but no launch
        moved = host.to(NULL, non_blocking=True)  # a copy into fresh memory
        product = (leaf * moved).view(3, 1)  # a launch into fresh memory, and a view
        torch.empty_like(moved).zero_()  # fresh, and a launch into memory that is there
        host + host
        with launches.of("norms"):
            torch._foreach_norm([leaf, moved])
            launches.called("cuCtxPushCurrent_v2")
            launches.called("cuLaunchKernel")
        loss = product.square().sum()
        with launches.of("backward"):
            loss.backward()
    found = launches.counts
    assert found["norms"].launches == {"_foreach_norm": 1, "rasterizer's": 1}
    assert (found["norms"].allocations, found["norms"].calls) == (2, 2)
    forward = found["forward"]
    assert forward.launches == {"mul": 1, "zero_": 1, "pow": 1, "sum": 1}
    assert (forward.allocations, forward.copies, forward.on_host, forward.calls) == (6, 1, 1, 0)
    # 1, expanded; p, times 2, times that; times the other factor.
    assert found["backward"].launches == {"ones_like": 1, "pow": 1, "mul": 3}
    assert all(counts.ns > 0 for counts in (forward, found["norms"], found["backward"]))


def test_a_half_is_no_copy_and_other_devices_are_the_host() -> None:
    launches = Launches(NULL)
    with launches:
        torch.empty(3, device=NULL).half()
        torch.ones(3).half()
    [counts] = launches.counts.values()
    assert counts.launches == {"_to_copy": 1}
    assert (counts.copies, counts.on_host) == (0, 2)


def test_an_iteration_of_sctd(tiny_config: Config) -> None:
    """A count above the ceiling is host work that was not there before."""
    state = assemble(changed(tiny_config, C_batch_size=4, densify_until_iter=0, relocate_interval=0))
    parts = script.counted(state, [1])
    launches = {part: counts.launches.total() for part, counts in parts.items()}
    assert [part for part in (*OUTSIDE, *NETWORKS) if launches[part] == 0] == [DECODER]
    assert sum(launches[part] for part in OUTSIDE) <= MOST_LAUNCHES
    # Seven kernels forward and three backward, each between two calls that set and restore the context.
    assert [parts[part].launches["rasterizer's"] for part in (RENDER, BACKWARD)] == [7, 3]
    assert [parts[part].calls for part in (RENDER, BACKWARD)] == [21, 9]
    assert sum(counts.calls for counts in parts.values()) == 30
    assert parts[OPTIMIZER].launches["_fused_adam_"] == 5  # without the harmonics that there are none of
    assert parts[DENSITY].launches["hypot"] == 1
    assert parts[BACKWARD_ENCODER].launches["convolution_backward"] > 0


@pytest.mark.thorough
def test_the_script_prints_what_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--model toybox --guidance gcs --views 1 --look 1 --size 32 --count 100 --json"
    script.main([*flags.split(), str(tmp_path / "found.json")])
    [row] = json.loads((tmp_path / "found.json").read_text())["rows"]
    parts = {part: Counts(**counts) for part, counts in row["parts"].items()}
    assert list(parts) == [*OUTSIDE, *NETWORKS]
    assert all(counts.launches and counts.ns for counts in parts.values())
    outside = sum(sum(parts[part].launches.values()) for part in OUTSIDE)
    said = capsys.readouterr().out
    assert f"| **outside the networks** | {outside} |" in said
    assert all(f"| {part} |" in said for part in parts)
