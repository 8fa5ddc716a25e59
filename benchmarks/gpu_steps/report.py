"""Write report.md and report.json: what all steps have found, as tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .plan import Step
from .records import Records
from .runner import DONE, Files, Outcome

Values = Mapping[str, Any]
"""Measurements of a step, by name."""
ITERATIONS = 5000
"""Iterations of the run whose length the report gives."""


def write_report(
    out: Path,
    steps: Sequence[Step],
    card: Mapping[str, Mapping[str, str]],
    software: Mapping[str, str],
    seconds: float,
) -> Path:
    """Write both files, of the steps that have ended in any call. Returns the path of report.md."""
    found = {step.name: Files(out, step).read_outcome() for step in steps}
    outcomes = {name: outcome for name, outcome in found.items() if outcome is not None}
    steps = [step for step in steps if step.name in outcomes]
    records = {step.name: Records(Files(out, step).records) for step in steps}
    values = {name: found.values() for name, found in records.items()}
    skipped = {name: found.skipped() for name, found in records.items()}
    everything = {
        "card": card,
        "software": software,
        "seconds": round(seconds, 1),
        "steps": {
            step.name: {
                **vars(outcomes[step.name]),
                "values": values[step.name],
                "skipped": skipped[step.name],
            }
            for step in steps
        },
    }
    (out / "report.json").write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    text = "\n".join(lines(steps, outcomes, values, skipped, card, software, seconds)) + "\n"
    (out / "report.md").write_text(text, encoding="utf-8")
    return out / "report.md"


def lines(
    steps: Sequence[Step],
    outcomes: Mapping[str, Outcome],
    values: Mapping[str, Values],
    skipped: Mapping[str, Mapping[str, str]],
    card: Mapping[str, Mapping[str, str]],
    software: Mapping[str, str],
    seconds: float,
) -> Iterator[str]:
    """Make the lines of report.md."""
    name = card["at the start"].get("name", "no GPU: a rehearsal, whose figures mean nothing")
    yield f"# {name}\n"
    yield from table(["", "at the start", "at the end"], card_rows(card))
    yield "\n" + ", ".join(f"{key} {value}" for key, value in software.items()) + "."
    yield f"All steps of this call took {seconds:.0f} s.\n"
    rows = [[s.name, s.title, outcomes[s.name].state, f"{outcomes[s.name].seconds:.0f}"] for s in steps]
    yield from table(["step", "what", "state", "seconds"], rows)
    for step in steps:
        outcome = outcomes[step.name]
        yield f"\n## {step.title}\n"
        if outcome.why:
            yield f"**{outcome.state}**: {outcome.why}\n"
        if step.name in TABLES and values[step.name]:
            yield from TABLES[step.name](values[step.name])
        for name, why in skipped[step.name].items():
            yield f"\n{name} was left out: {why}."
        if outcome.state != DONE and outcome.log:
            yield f"\nThe end of its log:\n\n```\n{outcome.log}\n```"


def card_rows(card: Mapping[str, Mapping[str, str]]) -> list[list[str]]:
    start, end = card["at the start"], card["at the end"]
    return [[key, value, end.get(key, "")] for key, value in start.items()]


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Make the lines of a Markdown table."""
    head = list(head)
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def number(value: Any, digits: int = 2) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def tests(values: Values) -> Iterator[str]:
    for found in values.values():
        counts = f"{found['passed']} passed, {len(found['failed'])} failed, {found['skipped']} skipped"
        yield f"{counts}; {found['at once']} at a time, in {found['seconds']:.0f} s.\n"
        for name, end in found["failed"].items():
            yield f"- `{name}`\n\n```\n{end}\n```"


def toybox(values: Values) -> Iterator[str]:
    yield "The networks of another step were being compiled meanwhile.\n"
    head = ["run", "seconds in all", "loop", "it/s", "GB", "Gaussians", "SHA-256 of the asset"]
    yield from table(head, (toybox_row(name, run) for name, run in values.items()))
    both = [values[name]["asset"] for name in ("deterministic", "deterministic, again") if name in values]
    if len(both) == 2:
        yield f"\nTwo deterministic runs end in {'the same bytes' if both[0] == both[1] else '**other bytes**'}.\n"
    for name, run in values.items():
        yield f"\n{name}:\n\n```\n" + "\n".join(run["lines"]) + "\n```"


def toybox_row(name: str, run: Values) -> list[str]:
    times = [number(run["seconds"], 1), number(run["loop"], 1), number(run["iterations per second"])]
    return [name, *times, number(run["GB"]), str(run["Gaussians"]), run["asset"][:16]]


def rasterizer(values: Values) -> Iterator[str]:
    rows = [row for row in values.values() if isinstance(row, dict) and "count" in row]
    ours: dict[tuple[int, int], float] = {}
    for row in rows:
        if row["total"] is not None:
            ours.setdefault((row["views"], row["count"]), row["total"])
    head = ["views", "Gaussians", "rasterizer", "forward, ms", "backward, ms", "both, ms", "× ours"]
    yield from table(
        [*head, "host, ms", "MiB", "PSNR to our CPU build, dB", "gradients differ by"],
        (rasterizer_row(row, ours.get((row["views"], row["count"]))) for row in rows),
    )
    for name, found in values.items():
        if name.startswith("agreement: "):
            yield f"\n{name.removeprefix('agreement: ')}: PSNR between rasterizers, dB\n"
            pairs = (
                [pair, value if isinstance(value, str) else number(value, 1)] for pair, value in found.items()
            )
            yield from table(["which", "PSNR"], pairs)
        if name.startswith("kernels: "):
            yield f"\n{name.removeprefix('kernels: ')}: our kernels, forward and backward, {found['ms']:.3f} ms in all\n"
            yield from kernels(found)


def rasterizer_row(row: Values, ours: float | None) -> list[str]:
    where = [str(row["views"]), f"{row['count']:,}", f"{row['name']} {row['version']}".strip()]
    if row["total"] is None:
        return [*where, f"not run: {row['why']}", *[""] * 7]
    times = [number(row[key], 3) for key in ("forward", "backward", "total")]
    ratio = "" if ours is None else number(row["total"] / ours)
    agree = [number(row["psnr"], 0), f"{row['gradients']:.0e}"]
    return [*where, *times, ratio, number(row["host"], 3), number(row["memory"], 0), *agree]


def kernels(found: Values) -> Iterator[str]:
    """A profile's heaviest kernels, and the host's calls."""
    rows = (
        [k["name"][:90], number(k["calls"], 1), number(k["ms"], 4), f"{k['share']:.1%}"]
        for k in found["heaviest"]
    )
    yield from table(["kernel", "calls", "ms", "share"], rows)
    calls = sorted(found["host_calls"].items(), key=lambda call: -call[1]) or [("none known", 0)]
    yield (
        f"\n{found['launches']:.0f} launches, {found['copies']:.0f} copies. Calls of the host: "
        + ", ".join(f"{k} {v:.0f}" for k, v in calls)
        + "."
    )


def iteration(values: Values) -> Iterator[str]:
    peak = values.get("matrix peak")
    if peak is not None:
        yield f"A large matrix product in the networks' precision: {peak:.3g} TFLOP/s.\n"
    rows = {
        tuple(name.split(", ", 2)): row
        for name, row in values.items()
        if isinstance(row, dict) and "ms" in row and "parts" in row
    }
    ours = {key[:2]: row["ms"] for key, row in rows.items() if key[2] == "ours"}
    head = ["guidance", "prompting", "way", "views at once", "ms", "× ours", "U-Net calls", "U-Net TFLOP/s"]
    head += ["of the peak", "GB", "GB reserved", "host waits", f"minutes for {ITERATIONS:,}"]
    yield from table(head, (iteration_row(key, row, ours.get(key[:2]), peak) for key, row in rows.items()))
    yield "\nParts, ms:\n"
    names = list(next(iter(rows.values()), {"parts": {}})["parts"])
    yield from table(
        ["guidance", "prompting", "way", *names],
        ([*key, *(number(row["parts"][name]) for name in names)] for key, row in rows.items()),
    )
    yield from iteration_details(values, rows)


def iteration_row(key: Sequence[str], row: Values, ours: float | None, peak: float | None) -> list[str]:
    share = "" if peak is None else f"{row['unet_tflops'] / peak:.0%}"
    calls = f"{row['calls']:.1f} of {row['latents'] / row['calls']:.1f}"
    return [
        *(*key, row["at_once"], number(row["ms"]), "" if ours is None else number(row["ms"] / ours), calls),
        *(f"{row['unet_tflops']:.3g}", share, number(row["memory"]), number(row["reserved"])),
        *("" if row["waits"] is None else str(row["waits"]), number(row["ms"] * ITERATIONS / 6e4)),
    ]


def iteration_details(values: Values, rows: Mapping[tuple[str, ...], Values]) -> Iterator[str]:
    """Memory, what was compiled, attention and the profile."""
    planned, first = values.get("memory"), next(iter(rows.values()), None)
    if planned is not None and first is not None:
        held = "unknown" if first["memory"] is None else f"{first['memory']:.2f} GB"
        computed = planned["needed"] + planned["weights"]
        yield f"\nMemory of SCTD, all views at once: {computed:.2f} GB computed with the reserve, {held} held at most."
    for name, found in values.items():
        if name.startswith("compiled, "):
            yield f"\n{name.capitalize()}: {found['seconds']:.0f} s. " + " ".join(found["said"])
    if values.get("attention"):
        yield "\nAttention's back-ends, as torch chooses them:\n"
        yield from table(["shape", "back-end"], ([k, v] for k, v in values["attention"].items()))
    if "profile" in values:
        found = values["profile"]
        waits = "unknown" if found["waits"] is None else found["waits"]
        yield f"\nOne iteration of SCTD: {found['ms']:.2f} ms of kernels, {waits} waits of the host.\n"
        yield from kernels(found)


def full_run(values: Values) -> Iterator[str]:
    for name, found in values["run"].items():
        yield f"\n{name.capitalize()}:\n"
        yield from table(
            ["part", "seconds"], ([part, number(value)] for part, value in found["parts"].items())
        )
        rest = {key: value for key, value in found.items() if key not in ("parts", "log")}
        yield "\n" + "; ".join(f"{key}: {value}" for key, value in rest.items())
        if "log" in found:
            yield f"\n```\n{found['log']}\n```"


def tools(values: Values) -> Iterator[str]:
    found = values.get("ncu", {})
    if found:
        columns = list(dict.fromkeys(column for row in found.values() for column in row))
        cells = ([name, *(cell(row.get(column)) for column in columns)] for name, row in found.items())
        yield from table(["kernel", *columns], cells)
    for name, each in values.items():
        if "found" in each:
            yield f"\n{name}: {each['found']} found, {each['seconds']:.0f} s.\n"
            if each["lines"]:
                yield f"```\n{each['lines']}\n```"


def cell(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:,.4g}"


TABLES: Mapping[str, Callable[[Values], Iterator[str]]] = {
    "a-tests": tests,
    "b-toybox": toybox,
    "c-rasterizer": rasterizer,
    "d-iteration": iteration,
    "e-run": full_run,
    "f-tools": tools,
}
