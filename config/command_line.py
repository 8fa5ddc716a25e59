"""The command line: every key is a flag of the same name, with the values that follow it."""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType
from typing import Any, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from config.errors import ConfigError, nearest, show
from config.schema import SECTIONS, keys_of, section_of
from config.yaml_file import Values

ALIASES = {"guid_scale": ("GuidanceParams", "guidance_scale")}
"""Flags of the originals that have another name than their key, and win over it."""


def flags() -> dict[str, tuple[str, str]]:
    """Return flag name (without dashes) -> (YAML section or '', key). A name at the top hides it in a section."""
    homes = {key: (section, key) for section in (*SECTIONS, "") for key in keys_of(section)}
    return {**homes, **ALIASES}


def parse(argv: Sequence[str]) -> tuple[str | None, Values]:
    """Return the path after ``--opt`` (None where it is not given) and the raw values of the other flags.

    Raises ``ConfigError`` for an unknown flag, a missing value and one too many.
    """
    known = flags()
    given: dict[str, list[str]] = {}
    for name, arguments in _split(argv):
        if name not in known and name != "opt":
            raise ConfigError(
                f"{show('--' + name)[1:-1]} is not a flag; the nearest is --{nearest(name, [*known, 'opt'])}."
            )
        given[name] = arguments
    path = None
    if "opt" in given:
        if len(given["opt"]) != 1:
            raise ConfigError(f"--opt got {show(given['opt'])}, but takes the path of one YAML file.")
        path = given.pop("opt")[0]
    values: Values = {section: {} for section in ("", *SECTIONS)}
    # Aliases come last, so that they win.
    for name in sorted(given, key=lambda name: name in ALIASES):
        section, key = known[name]
        values[section][key] = _value(name, section_of(section).model_fields[key], given[name])
    return path, values


def _split(argv: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Split into each ``--flag`` with the arguments up to the next one; ``--flag=value`` too."""
    found: list[tuple[str, list[str]]] = []
    for token in argv:
        if token.startswith("--"):
            name, equals, value = token[2:].partition("=")
            found.append((name, [value] if equals else []))
        elif not found:
            raise ConfigError(
                f"{show(token)} stands alone, but must follow a flag, as in --opt config/bagel.yaml."
            )
        else:
            found[-1][1].append(token)
    return found


def _value(name: str, field: FieldInfo, arguments: list[str]) -> Any:
    """The raw value of a flag: its text, a list of texts for keys with several, true for a bare switch."""
    if not arguments and field.annotation in (bool, bool | None):
        return True
    if is_list(field):
        if len(arguments) == 1:
            return _literal(arguments[0])
        if arguments:
            return arguments
    if len(arguments) == 1:
        word = arguments[0]
        return None if word.lower() in ("null", "none") and is_optional(field) else word
    if not arguments:
        raise ConfigError(f"--{name} has no value, but needs one, as in --{name} {_example(field.default)}.")
    raise ConfigError(
        f"--{name} got {len(arguments)} values ({show(' '.join(arguments))}), but takes one: "
        "quote a value that has spaces."
    )


def _example(default: Any) -> str:
    if isinstance(default, (list, tuple)):
        return " ".join(f"{item:g}" for item in default)
    return show(default) if default not in (None, "") else "VALUE"


def _literal(text: str) -> Any:
    """Return ``[1, 2]`` as the list, anything else as a list of the one text."""
    if not text.lstrip().startswith("["):
        return None if text.lower() in ("null", "none") else [text]
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


def is_optional(field: FieldInfo) -> bool:
    """Return whether a key may be null."""
    return NoneType in get_args(field.annotation)


def is_list(field: FieldInfo) -> bool:
    """Return whether a key has several values."""
    return bool(items_of(field))


def items_of(field: FieldInfo) -> tuple[Any, ...]:
    """Return the types of a key's values, ending in ... where there may be any number; none for keys with one value."""
    parts = (field.annotation, *get_args(field.annotation))
    return next((get_args(part) for part in parts if get_origin(part) is tuple), ())
