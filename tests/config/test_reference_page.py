"""The page docs/configuration.md, which is made of the schema."""

from __future__ import annotations

import re
from pathlib import Path

from config.reference import reference
from config.schema import SECTIONS, keys_of

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_page_is_that_of_the_present_schema() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), (
        "run: python -m config.reference > docs/configuration.md"
    )


def test_it_names_every_key_once_in_its_section() -> None:
    parts = re.split(r"^## (.*)$", reference(), flags=re.MULTILINE)[1:]
    found = dict(zip(parts[::2], parts[1::2]))
    assert list(found) == ["The run", *SECTIONS]
    for section in ("", *SECTIONS):
        text = found[section or "The run"]
        rows = re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)
        [*without_effect] = re.findall(r"`(\w+)`", text.partition("without effect: ")[2])
        assert sorted(rows + without_effect) == sorted(keys_of(section))


def test_every_row_has_four_cells() -> None:
    rows = [line for line in reference().splitlines() if line.startswith("|")]
    assert rows
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}
