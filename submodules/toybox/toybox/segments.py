"""SCTD over the number and kind of its segments and its threshold: SegmentDreamer's Fig. 6, one run for each."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from config import Config, ConfigError
from gaussian_renderer import Gaussians
from toybox.runs import Bench, Outcome, Settings
from toybox.sheets import asset_sheet

NUM_SEGMENTS, MODES, THRESHOLDS = (1, 3, 5, 10), ("uniform", "mono"), (100, 150, 300)

Cell = tuple[int, str, int]
"""N_s, the segmentation, t_τ in timesteps."""


def cells() -> list[Cell]:
    """Row by row of the table."""
    return [(count, mode, tau) for count in NUM_SEGMENTS for mode in MODES for tau in THRESHOLDS]


def settings(cell: Cell) -> Settings:
    count, mode, tau = cell
    return {"guidance_type": "sctd", "phase_num": str(count), "t_mode": mode, "t_threshold": str(tau)}


def same_as_another(cell: Cell) -> bool:
    """One segment is the same, however it is cut."""
    return cell[0] == 1 and cell[1] != MODES[0]


def configs(bench: Bench, prompt: str, seed: int) -> dict[str, Config]:
    """By name, those that are possible and not the same as another."""
    found = {}
    for cell in cells():
        if same_as_another(cell):
            continue
        try:
            config = bench.config(prompt, seed, settings(cell))
        except ConfigError:
            continue
        count, mode, tau = cell
        found[f"{count} {mode} {tau}, {prompt}, seed {seed}"] = config
    return found


def outcome_of(bench: Bench, prompt: str, seed: int, cell: Cell) -> tuple[Outcome | None, str]:
    """What stands in the table: a run's numbers, or why there are none."""
    if same_as_another(cell):
        return None, f"as {MODES[0]}"
    try:
        outcome = bench.outcome(prompt, seed, settings(cell))
    except ConfigError:
        return None, "impossible"
    return outcome, outcome.assessment.short if outcome else "not run"


def table(bench: Bench, prompt: str, seed: int) -> str:
    """Markdown: N_s down, segmentation and t_τ across; the judge's accuracy and PSNR of one run each."""
    heads = [f"{mode}, t_τ {tau}" for mode in MODES for tau in THRESHOLDS]
    lines = ["| N_s | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    for count in NUM_SEGMENTS:
        says = [outcome_of(bench, prompt, seed, cell)[1] for cell in cells() if cell[0] == count]
        lines.append(f"| {count} | " + " | ".join(says) + " |")
    return "\n".join(lines)


def sheet(bench: Bench, prompt: str, seed: int) -> Tensor:
    """Laid out as the table."""

    def shown() -> Iterator[tuple[Gaussians | None, str, str]]:
        for cell in cells():
            outcome, says = outcome_of(bench, prompt, seed, cell)
            count, mode, tau = cell
            yield outcome.gaussians if outcome else None, f"N_s {count}, {mode} {tau}", says

    return asset_sheet(shown(), len(MODES) * len(THRESHOLDS), bench.config(prompt, seed, {}))
