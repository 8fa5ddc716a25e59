"""Step a: every test that needs a GPU, side by side."""

from __future__ import annotations

import os
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .step import ROOT, Context, last_lines, main, program

MARK = "mark.gpu"
MOST_AT_ONCE = 12
"""Processes, each of which holds a CUDA context of about half a GB."""


def files_with_gpu_tests() -> list[Path]:
    """Find the files with such tests: the others need not be imported."""
    tests = [*ROOT.glob("tests/**/test_*.py"), *ROOT.glob("submodules/*/tests/test_*.py")]
    return [path for path in sorted(tests) if MARK in path.read_text(encoding="utf-8")]


def run_tests(files: Sequence[Path], work: Path, at_once: int) -> dict[str, Any]:
    """Run the tests: how many passed, failed and were skipped, and the last lines of each failure by the
    test's name.
    """
    report = work / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-n", str(at_once), "--dist", "worksteal"]
    command += [f"--junitxml={report}", "-p", "no:cacheprovider", *map(str, files)]
    done = program(command, ROOT)
    if not report.exists():
        raise RuntimeError(f"pytest ended with exit code {done.code}: {last_lines(done.output, 3)}")
    return {**summary(report), "seconds": round(done.seconds, 1), "at once": at_once}


def summary(report: Path) -> dict[str, Any]:
    """Count a JUnit file's tests, and name those that failed."""
    cases = list(ET.parse(report).getroot().iter("testcase"))
    bad = {
        f"{case.get('classname')}::{case.get('name')}": last_lines(found.text or found.get("message") or "")
        for case in cases
        for found in (*case.findall("failure"), *case.findall("error"))
    }
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {"passed": len(cases) - len(bad) - skipped, "failed": bad, "skipped": skipped}


def run(context: Context) -> None:
    at_once = 1 if context.rehearsal else max(1, min(MOST_AT_ONCE, (os.cpu_count() or 2) - 2))
    context.records.once("tests", lambda: run_tests(files_with_gpu_tests(), context.work, at_once))


if __name__ == "__main__":
    main(run)
