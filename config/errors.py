"""What a user reads when a configuration does not fit: one sentence with the key, the value and a way out."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import ErrorDetails

from config.schema import SECTIONS, section_of

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


class ConfigError(ValueError):
    """A configuration that cannot be used; its message is one sentence on one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def show(value: Any) -> str:
    """A value as the sentences quote it: one line, cut where it is long."""
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    return " ".join(_SHORT.repr(value).split())


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that is most like ``word``; case does not count."""
    by_lower = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word[:80].lower(), by_lower, n=1, cutoff=0.0)
    return by_lower[found[0]]


def invalid_value(details: ErrorDetails) -> ConfigError:
    """The sentence for one error of pydantic's validation of a ``Config``."""
    if details["type"] == "sentence":
        return ConfigError(details["msg"])
    attribute, *rest = (str(part) for part in details["loc"])
    section = next((name for name, held in SECTIONS.items() if held == attribute), "") if rest else ""
    name = rest[0] if section else attribute
    field = section_of(section).model_fields[name]
    label = f"{section}.{name}" if section else name
    value = details["input"]
    context: Mapping[str, Any] = details.get("ctx", {})
    if details["type"] == "choice":
        choices = context["choices"]
        expected = f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0]
        if isinstance(value, str) and len(choices) > 1:
            expected += f" (the nearest is {nearest(value, choices)})"
            return ConfigError(f"{label} is {show(value)}, but must be {expected}.")
    elif details["type"] == "requirement":
        expected = details["msg"]
    else:
        expected = _bounds(field)
        if details["type"] in ("greater_than_equal", "less_than_equal", "multiple_of"):
            bound = next(iter(context.values()))
            closest = round(value / bound) * bound if details["type"] == "multiple_of" else bound
            return ConfigError(
                f"{label} is {show(value)}, but must be {expected} (the nearest is {show(closest)})."
            )
    return ConfigError(
        f"{label} is {show(value)}, but must be {expected}; the default is {show(field.default)}."
    )


def _bounds(field: Any) -> str:
    """The bounds of a numeric field in words, e.g. 'at least 0 and at most 1'."""
    words = {
        "ge": "at least",
        "gt": "more than",
        "le": "at most",
        "lt": "less than",
        "multiple_of": "a multiple of",
    }
    found = [
        f"{word} {getattr(constraint, name):g}"
        for name, word in words.items()
        for constraint in field.metadata
        if getattr(constraint, name, None) is not None
    ]
    return " and ".join(found)
