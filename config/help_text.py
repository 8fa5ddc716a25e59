"""The text of ``--help``, made of the schema: each flag with what it takes, its meaning and its default."""

from __future__ import annotations

import textwrap
from typing import Any

from config.command_line import flags, items_of
from config.errors import show
from config.keys import choices, extra
from config.schema import SECTIONS, keys_of, section_of

_WIDTH = 110
_COLUMN = 34

_HEAD = """\
usage: python train.py [--opt FILE] [--FLAG VALUE ...]

Makes a 3D asset of a prompt. Flags win over the file; every key of the file is a flag.

  --opt FILE                      the configuration (default: config/quickstart.yaml)
  --guid_scale X                  guidance_scale, as SegmentDreamer calls it; wins over --guidance_scale
  --help                          this text
"""


def help_text() -> str:
    """Text of all flags, grouped like the sections of the YAML file."""
    return "\n".join([_HEAD, *(_group(section) for section in ("", *SECTIONS))])


def _group(section: str) -> str:
    known = flags()
    fields = {
        key: section_of(section).model_fields[key] for key in keys_of(section) if known[key] == (section, key)
    }
    lines = [f"{section or 'The run'}:"]
    for key, field in fields.items():
        if not extra(field)["unused"]:
            lines += _entry(
                f"  --{key} {_takes(field)}", f"{field.description} (default: {_shown(field.default)})"
            )
    unused = [f"--{key}" for key, field in fields.items() if extra(field)["unused"]]
    if unused:
        lines += _wrap("accepted for older files, without effect: " + " ".join(unused), "  ")
    return "\n".join(lines) + "\n"


def _entry(flag: str, meaning: str) -> list[str]:
    lines = _wrap(meaning, " " * _COLUMN)
    if len(flag) < _COLUMN - 1:
        return [flag.ljust(_COLUMN) + lines[0].lstrip(), *lines[1:]]
    return [flag, *lines]


def _wrap(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


def _takes(field: Any) -> str:
    """Placeholder after a flag, e.g. X for a number."""
    items = items_of(field)
    more = " ..." if ... in items else ""
    if words := choices(field):
        return "{" + ",".join(words) + "}" + more
    if items:
        signs = {int: "N", float: "X", str: "TEXT"}
        return " ".join(signs[item] for item in items if item is not ...) + more
    kinds = {
        bool: "[true|false]",
        bool | None: "[true|false]",
        int: "N",
        int | None: "N",
        float: "X",
        float | None: "X",
    }
    return kinds.get(field.annotation, "TEXT")


def _shown(default: Any) -> str:
    return show(default) if default not in (None, "") else "none"
