"""The pages that name keys of the configuration, against the schema."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from config.command_line import flags

ROOT = Path(__file__).parents[1]
OPTIONS = {"opt", "help"}
OF_OTHER_PROGRAMS = {"axes", "dry_run", "jobs", "logdir", "nproc_per_node", "out", "sheet", "suite"}
PAGES = [
    "README",
    *(f"docs/{name}" for name in ("edit", "getting-started", "interruptions", "methods", "stable-diffusion")),
    *(f"docs/{name}" for name in ("starts", "troubleshooting")),
]


def text_of(page: str) -> str:
    return (ROOT / f"{page}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_is_a_key(page: str) -> None:
    named = set(re.findall(r"(?<![\w-])--(\w+)", text_of(page))) - OF_OTHER_PROGRAMS
    assert len(named) > 1
    assert named <= OPTIONS | set(flags())


@pytest.mark.parametrize("page", ["docs/maths", "docs/troubleshooting"])
def test_every_name_with_an_underscore_is_a_key(page: str) -> None:
    text = text_of(page).partition("## From equations")[0]  # what follows names functions
    named = set(re.findall(r"`([a-z]+_\w+)(?::[^`]*)?`", text))
    assert len(named) > 5
    assert named <= set(flags())
