"""Messages for a configuration that does not fit: one sentence with the key, the value and a way out."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from config.schema import SECTIONS, section_of

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlevel = 2  # a small file can describe an enormous value: YAML aliases


class ConfigError(ValueError):
    """A configuration that cannot be used; its message is one sentence on one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def show(value: Any) -> str:
    """Quote a value for a sentence: one line, cut where it is long."""
    if isinstance(value, (list, tuple)):
        # Floats that are whole are shown as they were written: [45, 105].
        value = [int(item) if isinstance(item, float) and item.is_integer() else item for item in value[:7]]
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    return " ".join(_SHORT.repr(value).split())


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that is most like ``word``; case does not count."""
    by_lower = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word[:80].lower(), by_lower, n=1, cutoff=0.0)
    return by_lower[found[0]]


def invalid_value(details: ErrorDetails) -> ConfigError:
    """Make the sentence for one error of pydantic's validation of a ``Config``."""
    if details["type"] == "sentence":
        return ConfigError(details["msg"])
    attribute, *rest = (str(part) for part in details["loc"])
    section = next((name for name, held in SECTIONS.items() if held == attribute), "") if rest else ""
    name = rest[0] if section else attribute
    label = f"{section}.{name}" if section else name
    field = section_of(section).model_fields[name]
    expected, closest = _expected(details, field)
    way_out = (
        f"the default is {show(field.default)}" if closest is None else f"the nearest is {show(closest)}"
    )
    return ConfigError(f"{label} is {show(details['input'])}, but must be {expected}; {way_out}.")


def _expected(details: ErrorDetails, field: FieldInfo) -> tuple[str, Any]:
    """Return the expected value of ``field`` in words, and the nearest such value (None where there is none)."""
    context, value = details.get("ctx", {}), details["input"]
    if details["type"] == "choice":
        choices = context["choices"]
        expected = f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0]
        return expected, nearest(value, choices) if isinstance(value, str) else None
    if details["type"] == "requirement":
        return details["msg"], context["nearest"]
    # The bounds of pydantic itself; an open one (gt, lt) has no nearest value.
    closed = details["type"] in ("greater_than_equal", "less_than_equal")
    return bounds(field), next(iter(context.values())) if closed else None


def bounds(field: FieldInfo) -> str:
    """Return the bounds of a numeric field in words, e.g. 'at least 0, at most 1'."""
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    found = [
        f"{word} {show(getattr(constraint, name))}"
        for name, word in words.items()
        for constraint in field.metadata
        if getattr(constraint, name, None) is not None
    ]
    return " and ".join(found)
