"""The command for a GPU, rehearsed without one: a report holds each step's result, or the reason for its end."""

from __future__ import annotations

import json
import os
import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gpu as script
import pytest
import torch

from gpu_steps import gpu_tests, runner, tools
from gpu_steps.plan import STEPS, Step
from gpu_steps.records import Records
from iterations.kernels import profiled
from utils.device import HOST

PRELUDE = "import sys, os, time; from pathlib import Path; from gpu_steps.records import Records; found = Records(Path(sys.argv[1]));"


def step(name: str, body: str, **settings: Any) -> Step:
    """A step that runs a line of Python."""
    return Step(name, name, (sys.executable, "-c", PRELUDE + body), **{"seconds": 60, **settings})


@pytest.fixture
def environment() -> dict[str, str]:
    return dict(script.machine.environment())


NCU = """#!/bin/sh
echo '==PROF== Connected to process 1'
cat <<'END'
"ID","Kernel Name","gpu__time_duration.sum","sm__throughput.avg.pct_of_peak_sustained_elapsed","gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed","sm__warps_active.avg.pct_of_peak_sustained_active","l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio","l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_st.ratio"
"","","ns","%","%","%","sector","sector"
"0","render(dgr::Frame)","1,000","20","10","50","4.5","4"
"1","render(dgr::Frame)","12,345","81.5","40","48.2","4.5","4"
"2","sort(dgr::Frame)","2,000","30","77","90","","2"
END
"""
SANITIZER = """#!/bin/sh
echo "========= ERROR SUMMARY: 0 errors"
case "$*" in *racecheck*) echo "========= RACECHECK SUMMARY: 2 hazards displayed (2 errors, 0 warnings)";; esac
"""


def write_tools(folder: Path) -> None:
    """Write stand-ins for NVIDIA's tools, which print as they do."""
    folder.mkdir()
    for name, text in (("ncu", NCU), ("compute-sanitizer", SANITIZER)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755 | stat.S_IXUSR)


def broken_steps() -> tuple[Step, ...]:
    """Steps of which one crashes and one hangs."""
    crash = "found.once('one', lambda: 1); found.once('two', os.abort); found.once('three', lambda: 3)"
    return (
        step("x-crash", crash),
        step("y-hang", "found.once('long', lambda: time.sleep(600))", seconds=2),
    )


@pytest.mark.slow
def test_a_short_rehearsal_ends_in_a_report(tmp_path: Path) -> None:
    """One of the steps runs on the processor, beside one that crashes and one that hangs."""
    broken = broken_steps()
    [rasterizer] = [each for each in STEPS if each.name == "c-rasterizer"]
    flags = ["--rehearse", "--minutes", "30", "--out", str(tmp_path)]
    assert script.main(flags, [rasterizer, *broken]) == 1
    found = json.loads((tmp_path / "rehearsal" / "report.json").read_text())["steps"]
    assert found["c-rasterizer"]["state"] == "done"
    assert found["x-crash"]["state"] == "failed"
    assert found["x-crash"]["values"] == {"one": 1, "three": 3}
    assert found["y-hang"]["state"] == "out of time"
    assert "PSNR between rasterizers" in (tmp_path / "rehearsal" / "report.md").read_text()


@pytest.mark.thorough
def test_the_rehearsal_ends_in_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps run on the processor, with one that crashes and one that hangs; a second call does what is left."""
    write_tools(tmp_path / "tools")
    monkeypatch.setenv("PATH", f"{tmp_path / 'tools'}{os.pathsep}{os.environ['PATH']}")
    out = tmp_path / "out" / "rehearsal"
    broken = broken_steps()
    flags = ["--rehearse", "--minutes", "30", "--out", str(out.parent)]
    assert script.main(flags, [*STEPS, *broken]) == 1
    found = json.loads((out / "report.json").read_text())["steps"]
    for each in STEPS:
        assert found[each.name]["state"] == "done", found[each.name]
    assert found["x-crash"]["state"] == "failed"
    assert found["x-crash"]["values"] == {"one": 1, "three": 3}
    assert found["x-crash"]["why"] == "two: its process ended before it did"
    assert found["y-hang"]["state"] == "out of time"
    assert found["y-hang"]["why"] == "it was stopped in: long"

    # What the steps have found hangs together.
    runs = found["b-toybox"]["values"]
    assert runs["deterministic"]["asset"] == runs["deterministic, again"]["asset"]
    rows = found["d-iteration"]["values"]
    assert 2 <= rows["sctd, CFG, ours"]["evaluations"] < rows["sctd, CFG, as released"]["evaluations"] <= 5
    assert rows["profile"]["heaviest"]
    whole = found["e-run"]["values"]["run"]
    assert whole["resume"]["asset"]
    assert 20 <= whole["start"]["killed after"] < 40
    assert found["f-tools"]["values"]["racecheck"]["found"] == 2

    text = (out / "report.md").read_text()
    for each in (*STEPS, *broken):
        assert f"## {each.title}" in text
    for heading in (
        "host waits",
        "U-Net TFLOP/s",
        "back-end",
        "PSNR between rasterizers",
        "imports",
        "occupancy",
    ):
        assert heading in text
    assert "Traceback" not in text.replace("The end of its log", "")

    mended = (
        step("x-crash", "found.once('two', lambda: 2)"),
        step("y-hang", "found.once('long', lambda: 0)"),
    )
    assert script.main(flags, [*STEPS, *mended]) == 0
    found = json.loads((out / "report.json").read_text())["steps"]
    assert found["x-crash"]["values"] == {"one": 1, "three": 3, "two": 2}
    assert rows == found["d-iteration"]["values"]


def test_steps_that_prepare_themselves_begin_at_once_and_wait(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """Quiet steps begin when nobody prepares; the others need not wait."""
    log = tmp_path / "order"
    note = f"note = lambda word: open({str(log)!r}, 'a').write(word + ' ');"
    turn = "from gpu_steps.step import Context; context = Context(found, Path(sys.argv[2]), 'cpu');"
    steps = (
        step("a", note + "note('a')", quiet=False),
        step("b", note + "note('b')"),
        step(
            "c",
            note + turn + "time.sleep(2); note('ready'); context.wait_for_turn(); note('c')",
            prepares=True,
        ),
    )
    outcomes = runner.run(steps, tmp_path / "out", "cpu", environment, 60)
    assert {outcome.state for outcome in outcomes.values()} == {"done"}
    order = log.read_text().split()
    assert order.index("ready") < order.index("b") < order.index("c")
    assert order.index("a") < order.index("b")


def test_no_step_begins_after_the_last_minute(tmp_path: Path, environment: dict[str, str]) -> None:
    steps = (step("a", "time.sleep(60)", quiet=False), step("b", "found.once('b', lambda: 1)"))
    outcomes = runner.run(steps, tmp_path, "cpu", environment, 1.0)
    assert [outcome.state for outcome in outcomes.values()] == ["out of time", "not run"]


def test_a_lost_device_is_left_to_another_process(tmp_path: Path, environment: dict[str, str]) -> None:
    lost = "import gpu_steps.records as records; records.device_is_lost = lambda: not found.values();"
    bad = "found.once('bad', lambda: 1 / 0); records.device_is_lost = lambda: False; found.once('good', lambda: 2)"
    outcomes = runner.run([step("a", lost + bad)], tmp_path, "cpu", environment, 60)
    kept = Records(runner.Files(tmp_path, step("a", "")).records)
    assert kept.values() == {"good": 2}
    assert outcomes["a"].why == "bad: ZeroDivisionError: division by zero"


def test_records_survive_a_line_that_was_cut(tmp_path: Path) -> None:
    kept = Records(tmp_path / "a.jsonl")
    kept.begin_call()
    assert kept.once("one", lambda: 1) == 1
    with open(kept.path, "a") as file:
        file.write('{"name": "two", "val')
    assert kept.values() == {"one": 1}
    assert kept.once("one", lambda: 2) == 1
    assert kept.once("two", lambda: 2) == 2
    assert kept.values() == {"one": 1, "two": 2}


def test_failed_tests_are_named_with_their_last_lines(tmp_path: Path) -> None:
    """A report of pytest gives counts and failures; files with tests for a GPU are found."""
    report = tmp_path / "tests.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="a" name="good"/><testcase classname="a" name="bad">'
        '<failure message="boom">first\nE  assert 1 == 2</failure></testcase>'
        '<testcase classname="a" name="left"><skipped/></testcase></testsuite></testsuites>'
    )
    found = gpu_tests.summary(report)
    assert found == {"passed": 1, "failed": {"a::bad": "first\nE  assert 1 == 2"}, "skipped": 1}
    assert Path(__file__).with_name("test_rasterizer.py") in gpu_tests.files_with_gpu_tests()


def test_what_bounds_a_kernel_is_read_from_ncus_table() -> None:
    found = tools.read_metrics(NCU)
    assert found["render"]["ns"] == 12345.0, "of the launch that took longest"
    assert found["render"]["bound by"] == "compute"
    assert found["sort"]["bound by"] == "memory"
    assert "sectors per load" not in found["sort"]
    assert tools.bound({"compute, %": 30.0, "memory, %": 50.0}) == "latency"


def test_a_profile_counts_what_runs() -> None:
    x = torch.randn(64, 64)
    found = profiled(lambda: x @ x @ x, HOST, repeats=3)
    assert {kernel.name: kernel.calls for kernel in found.heaviest}["aten::mm"] == 2
    assert sum(kernel.share for kernel in found.heaviest) == pytest.approx(1)


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--out", "x"], 2, "torch sees no NVIDIA GPU here"),
        ([], 2, "--out is missing, but it must name a folder"),
        (["--only", "z", "--out", "x"], 2, "--only is z, but it must be one of a-tests, b-toybox"),
        (["--minutes", "0", "--out", "x"], 2, "--minutes is 0, but it must be above 0"),
        (["--dry-run", "--only", "d"], 0, ""),
    ],
)
def test_wrong_calls_get_a_sentence(
    flags: list[str],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(script.machine, "has_gpu", lambda: False)
    try:
        ended = script.main(flags)
    except SystemExit as stopped:
        ended = stopped.code  # type: ignore[assignment]
    printed = capsys.readouterr()
    assert ended == code
    assert said in printed.err
    assert "Traceback" not in printed.err
    if not code:
        assert [line.split(" | ")[0] for line in printed.out.splitlines()[2:]] == ["| d-iteration"]


def test_missing_packages_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Packages have pip's names; the steps that need them are left out, and the others run."""
    absent = replace(step("a-one", ""), needs=("no_such_module", "json"))
    there = step("b-two", "found.once('x', lambda: 1)")
    assert script.main(["--rehearse", "--out", str(tmp_path)], [absent, there]) == 1
    assert "Missing, and steps left out for it: no_such_module" in capsys.readouterr().out
    found = json.loads((tmp_path / "rehearsal" / "report.json").read_text())["steps"]
    assert found["a-one"]["why"] == "missing: no_such_module"
    assert found["b-two"]["values"] == {"x": 1}
