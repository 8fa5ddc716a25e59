"""The pages that name keys of the configuration, against the schema."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from config.command_line import flags

ROOT = Path(__file__).parents[1]
OPTIONS = {"opt", "help"}
OF_OTHER_PROGRAMS = {"axes", "dry_run", "for", "jobs", "logdir", "nproc_per_node", "out", "sheet", "suite"}
PAGES = [
    "README",
    *(f"docs/{name}" for name in ("edit", "getting-started", "interruptions", "methods", "stable-diffusion")),
    *(f"docs/{name}" for name in ("starts", "troubleshooting")),
]


def text_of(page: str) -> str:
    return text_of_file(f"{page}.md")


def text_of_file(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


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


def test_the_citation_file_names_the_papers_of_the_page() -> None:
    references = yaml.safe_load(text_of_file("CITATION.cff"))["references"]
    found = re.findall(r"title     = \{(.*)\},(?s:.*?)year      = \{(\d+)\}", text_of("docs/citing"))
    assert len(found) > 5
    assert [(each["title"], str(each["year"])) for each in references] == found
