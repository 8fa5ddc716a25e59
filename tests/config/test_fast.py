"""What `fast` makes of a file: fewer iterations and cheaper calls, a line about it, and flags that win."""

from __future__ import annotations

from pathlib import Path

import pytest

from config import Config, dump, load
from config.fast import CALLS, COUNTED_IN_CALLS
from config.schema import SECTIONS

BAGEL = ("--opt", "config/bagel.yaml")


def both(*flags: str) -> tuple[Config, Config]:
    """The configuration of bagel.yaml without and with `fast`."""
    return load([*BAGEL, *flags]), load([*BAGEL, *flags, "--fast"])


def test_counts_of_iterations_shrink_together_and_the_parts_come_in(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "config")
    plain, quick = both()
    for section, name in COUNTED_IN_CALLS:
        before, after = (getattr(getattr(one, SECTIONS[section]), name) for one in (plain, quick))
        if before is not None:
            assert CALLS * (after - 1) < before <= CALLS * after, name
    assert quick.optimization.grad_clip == (2, 8, 1000 / CALLS)
    assert (quick.optimization.raster_steps, quick.guidance.w_self, quick.guidance.t_threshold) == (
        3,
        0,
        1000,
    )
    assert not quick.fast
    [line] = [record.getMessage() for record in caplog.records if record.getMessage().startswith("fast: ")]
    assert f"{quick.optimization.iterations} iterations in place of {plain.optimization.iterations}" in line
    assert "w_self 0 (SCTD lacks its self-consistency, Eq. 10), t_threshold 1000" in line
    rest = quick.model_copy(update={"optimization": plain.optimization, "guidance": plain.guidance})
    assert rest == plain


def test_a_flag_switches_its_part_off() -> None:
    _, quick = both("--iterations", "70", "--w_self", "1", "--raster_steps", "1")
    assert (quick.optimization.iterations, quick.optimization.raster_steps, quick.guidance.w_self) == (
        70,
        1,
        1,
    )
    assert quick.guidance.t_threshold == 1000


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        (["--guidance_type", "sds"], {"w_self", "t_threshold"}),
        (["--sctd_variant", "released"], {"w_self", "t_threshold"}),
        (["--t_mode", "mono"], {"t_threshold"}),
    ],
)
def test_parts_of_sctd_leave_other_methods_alone(flags: list[str], kept: set[str]) -> None:
    plain, quick = both(*flags)
    same = {
        name
        for name in ("w_self", "t_threshold")
        if getattr(plain.guidance, name) == getattr(quick.guidance, name)
    }
    assert same == kept


def test_a_file_may_be_fast_and_what_it_leaves_is_not_made_faster_again(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "fast: true\nOptimizationParams: {iterations: 30}\n"
        "GuidanceParams: {text: a mug, refine_model_key: another, refine_from_iter: 20}\n"
    )
    quick = load(["--opt", str(path)])
    assert (quick.optimization.iterations, quick.guidance.refine_from_iter) == (10, 7)
    assert load(["--opt", str(path), "--fast", "false"]).optimization.iterations == 30
    path.write_text(dump(quick))
    assert load(["--opt", str(path)]).optimization.iterations == 10
