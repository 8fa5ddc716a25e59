"""Step f: NVIDIA's own tools on our rasterizer's kernels: what bounds each, and whether memory is used rightly."""

from __future__ import annotations

import csv
import re
import shutil
import sys
from functools import partial
from io import StringIO
from typing import Any

from diff_gaussian_rasterization.kernels import kernel_names

from .step import ROOT, Context, last_lines, main, program

METRICS = {
    "gpu__time_duration.sum": "ns",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "compute, %",
    "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed": "memory, %",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "occupancy, %",
    "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio": "sectors per load",
    "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_st.ratio": "sectors per store",
}
BUSY = 60.0
"""Percent of a unit's peak from which on it is what a kernel waits for (Nsight Compute's own rule)."""
LAUNCHES = 60
"""Launches of our kernels, at most: two iterations of either backward."""
NO_CACHE = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
"""Environment in which every tensor is an allocation of its own, so that no read beyond one goes unnoticed."""
CHECKS = ("memcheck", "racecheck")


def scene(context: Context, size: str) -> list[str]:
    return [sys.executable, "-m", "gpu_steps.small_scene", context.device, size]


def kernels(context: Context) -> dict[str, dict[str, float | str]]:
    """Measure, by kernel, what METRICS name and what bounds it, of the launch that took longest."""
    command = ["ncu", "--csv", "--page", "raw", "--print-units", "base", "--clock-control", "none"]
    command += ["--kernel-name-base", "function"]
    command += ["--metrics", ",".join(METRICS), "--launch-count", str(LAUNCHES)]
    command += ["--kernel-name", f"regex:^({'|'.join(kernel_names())})$", *scene(context, "large")]
    done = program(command, ROOT)
    found = read_metrics(done.output)
    if not found:
        raise RuntimeError(f"ncu ended with exit code {done.code}: {last_lines(done.output, 3)}")
    return found


def read_metrics(output: str) -> dict[str, dict[str, float | str]]:
    """Read what ncu prints: a table in CSV, whose second line has the units, among lines of its own."""
    table = [line for line in output.splitlines() if line.startswith('"')]
    longest: dict[str, dict[str, float | str]] = {}
    for line in csv.DictReader(StringIO("\n".join(table))):
        name = line.get("Kernel Name", "").split("(")[0]
        values: dict[str, float | str] = {}
        for metric, label in METRICS.items():
            try:
                values[label] = float((line.get(metric) or "").replace(",", ""))
            except ValueError:
                continue
        if "ns" not in values:
            continue
        values["bound by"] = bound(values)
        if name not in longest or float(values["ns"]) > float(longest[name]["ns"]):
            longest[name] = values
    return longest


def bound(values: dict[str, float | str]) -> str:
    """The unit that a kernel keeps busy, or "latency"."""
    compute, memory = (float(values.get(label, 0.0)) for label in ("compute, %", "memory, %"))
    if max(compute, memory) < BUSY:
        return "latency"
    return "compute" if compute > memory else "memory"


def check(context: Context, tool: str) -> dict[str, Any]:
    """Count what compute-sanitizer finds in three small scenes."""
    command = ["compute-sanitizer", "--tool", tool, "--print-limit", "5"]
    # Calls by which libraries try what the driver can do are no errors of ours.
    command += ["--report-api-errors", "no", *scene(context, "small")]
    done = program(command, ROOT, NO_CACHE)
    counted = re.findall(r"SUMMARY: (\d+) (?:errors?|hazards?)", done.output)
    if not counted:
        raise RuntimeError(f"{tool} ended with exit code {done.code}: {last_lines(done.output, 3)}")
    found = int(counted[-1])
    return {
        "found": found,
        "seconds": round(done.seconds, 1),
        "lines": last_lines(done.output, 12) if found else "",
    }


def plain(context: Context) -> dict[str, Any]:
    """The small scenes without a tool."""
    done = program(scene(context, "small"), ROOT)
    if done.code:
        raise RuntimeError(f"the scenes ended with exit code {done.code}: {last_lines(done.output, 3)}")
    return {"seconds": round(done.seconds, 1)}


def run(context: Context) -> None:
    context.records.once("scenes", partial(plain, context))
    measurements = {"ncu": {"ncu": partial(kernels, context)}}
    measurements["compute-sanitizer"] = {tool: partial(check, context, tool) for tool in CHECKS}
    for program_name, each in measurements.items():
        for name, measure in each.items():
            if shutil.which(program_name) is None:
                context.records.skip(name, f"{program_name}, of NVIDIA's CUDA toolkit, is not on the PATH")
            else:
                context.records.once(name, measure)


if __name__ == "__main__":
    main(run)
