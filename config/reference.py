"""The page of all keys, made of the schema: python -m config.reference > docs/configuration.md"""

from __future__ import annotations

import inspect
from typing import Any

from config.command_line import items_of
from config.errors import bounds, show
from config.keys import choices, extra
from config.schema import SECTIONS, keys_of, section_of

_HEAD = """\
# Every key

<!-- Made by: python -m config.reference > docs/configuration.md -->

A YAML file holds the sections below, with their keys indented. Keys of the run stand at the top, without a section. Every key
is a flag of the same name too (`--text "a red mug"`), and flags win over the file. `--guid_scale` is another name of
`--guidance_scale`. The defaults are those of SegmentDreamer, LucidDreamer and GCS-BEG; where these differ, `--like` takes one
project's. The files under `config/` hold only what differs from the defaults. `base: other.yaml` at the top of
a file takes the keys of a file beside it where it has none. A run without `--opt` uses `config/quickstart.yaml`. `config.yaml` in a run's folder names all keys.

An unknown key, or a value that does not fit, ends in one sentence. It names the nearest key or value that would do.
"""

_TOP = ("key", "takes", "default", "meaning")
_KINDS: dict[Any, str] = {bool: "true or false", int: "whole number", float: "number", str: "text"}


def reference() -> str:
    """Markdown page: a table of each section, with the idle keys of older files named below it."""
    return "\n".join([_HEAD, *(_of_section(section) for section in ("", *SECTIONS))])


def _of_section(section: str) -> str:
    model = section_of(section)
    fields = {key: model.model_fields[key] for key in keys_of(section)}
    used = {key: field for key, field in fields.items() if not extra(field)["unused"]}
    rows = [
        (f"`{key}`", _takes(field), _default(field), _plain(str(field.description)))
        for key, field in used.items()
    ]
    parts = [f"## {section or 'The run'}"]
    if section:
        parts.append(" ".join(str(inspect.getdoc(model)).replace("``", "`").split()))
    parts.append("\n".join(f"| {' | '.join(row)} |" for row in (_TOP, ("---",) * len(_TOP), *rows)))
    if unused := [f"`{key}`" for key in fields if key not in used]:
        parts.append(f"Accepted for older files, without effect: {', '.join(unused)}.")
    return "\n\n".join(parts) + "\n"


def _takes(field: Any) -> str:
    """Kind of a key's value, in words."""
    items = items_of(field)
    if words := choices(field):
        return ("one or several of " if items else "") + ", ".join(f"`{word}`" for word in words)
    if items:
        several = {int: "whole numbers", float: "one or several numbers", str: "one or several texts"}
        return several[items[0]] if ... in items else f"{len(items)} numbers"
    kind = next(word for kind, word in _KINDS.items() if field.annotation in (kind, kind | None))
    limits = bounds(field)
    return f"{kind}, {limits}" if limits else kind


def _default(field: Any) -> str:
    """Default as YAML has it; nothing for an empty text."""
    value = field.default if isinstance(field.default, str) else show(field.default)
    return f"`{value}`" if value else ""


def _plain(text: str) -> str:
    """Escape the signs that Markdown is to leave alone: cells end at |, HTML begins at <."""
    return text.replace("|", r"\|").replace("<", r"\<")


if __name__ == "__main__":
    print(reference(), end="")
