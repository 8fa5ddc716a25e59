"""The building blocks of the schema: how one key is declared and how its raw value becomes a typed one.

YAML 1.1 reads ``1e7`` and ``1e-4`` as strings, and the command line has nothing but strings. So every type here
accepts the text of a value as well as the value. A value that does not fit raises a ``requirement`` error,
whose message is the expected value; ``config.errors`` makes the sentence of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from utils.axes import up_and_front

LARGEST_COUNT = 2**31 - 1


class Section(BaseModel):
    """A frozen group of keys; a key that it does not declare is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _blank_means_default(cls, values: Any) -> Any:
        """Drop ``key:`` with nothing after it, for the keys that older files leave blank."""
        if not isinstance(values, dict):
            return values
        fields = cls.model_fields
        return {
            name: value
            for name, value in values.items()
            if value is not None or name not in fields or not extra(fields[name]).get("blank_is_default")
        }


def key(
    default: Any,
    meaning: str,
    *,
    unused: bool = False,
    acts_as: Any = None,
    blank_is_default: bool = False,
    **bounds: float,
) -> Any:
    """Declare a key: its default, its meaning with units, and pydantic's bounds (``ge``, ``gt``, ``le``, ``lt``).

    ``unused`` marks a key that older files know and that has no effect here: another value than its default is
    accepted with a warning. ``acts_as`` is the value that it behaves like, where that is not the default.
    ``blank_is_default`` lets a file leave the value blank (null) to mean the default.
    """
    marks = {"unused": unused, "acts_as": acts_as, "blank_is_default": blank_is_default}
    constraints: dict[str, Any] = dict(bounds)
    return Field(default, description=meaning, json_schema_extra=marks, **constraints)


def extra(field: Any) -> dict[str, Any]:
    """Return the marks that ``key`` put on a field (empty for fields declared otherwise)."""
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def choices(field: Any) -> list[str]:
    """Return the words that ``one_of`` leaves a field (none for fields declared otherwise)."""
    return [name for part in field.metadata for name in getattr(getattr(part, "func", None), "choices", ())]


def requirement(what: str, nearest: Any = None) -> PydanticCustomError:
    """Make the error for a value that should have been ``what``, e.g. 'a whole number'; ``nearest`` would do."""
    return PydanticCustomError("requirement", "{what}", {"what": what, "nearest": nearest})


def sentence(text: str) -> PydanticCustomError:
    """Make the error for values that do not fit together; ``text`` is the full sentence."""
    return PydanticCustomError("sentence", "{text}", {"text": text})


def _to_number(value: Any, what: str) -> int | float:
    if isinstance(value, str) and len(value) < 64:
        for parse in (int, float):
            try:
                return parse(value)
            except ValueError:
                continue
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise requirement(what)
    return value


def _to_real(value: Any) -> float:
    try:
        number = float(_to_number(value, "a number"))
    except OverflowError:
        raise requirement("a finite number") from None
    if number - number != 0:  # NaN and both infinities
        raise requirement("a finite number")
    return number


def _to_whole(value: Any) -> int:
    number = _to_number(value, "a whole number")
    if isinstance(number, float) and not number.is_integer():
        finite = abs(number) < LARGEST_COUNT
        raise requirement("a whole number", round(number) if finite else None)
    whole = int(number)
    if abs(whole) > LARGEST_COUNT:
        raise requirement(f"a whole number within ±{LARGEST_COUNT}")
    return whole


def _to_flag(value: Any) -> bool:
    words = {
        "true": True,
        "yes": True,
        "on": True,
        "1": True,
        "false": False,
        "no": False,
        "off": False,
        "0": False,
    }
    if isinstance(value, (bool, int, str)) and str(value).lower() in words:
        return words[str(value).lower()]
    raise requirement("true or false")


def _to_text(value: Any) -> str:
    if not isinstance(value, str):
        raise requirement("text (put it in quotes)")
    # Half a surrogate pair cannot be written to a file, and no path may hold a null character.
    if any(sign == "\0" or "\ud800" <= sign <= "\udfff" for sign in value):
        raise requirement("text of Unicode characters")
    return value


def _items(value: Any, what: str, length: int | None = None) -> list[Any]:
    if not isinstance(value, (list, tuple)) or (length is not None and len(value) != length):
        raise requirement(what)
    return list(value)


def interval(low: float, high: float, *, strict: bool = False) -> BeforeValidator:
    """Accept a pair [a, b] with ``low`` <= a <= b <= ``high`` (a < b where ``strict``)."""
    what = f"two numbers [low, high] with {low:g} <= low {'<' if strict else '<='} high <= {high:g}"

    def check(value: Any) -> tuple[float, float]:
        first, second = (_number_in(item, what) for item in _items(value, what, 2))
        if not low <= first <= second <= high or (strict and first == second):
            first, second = sorted(min(max(end, low), high) for end in (first, second))
            raise requirement(what, [first, second] if first < second or not strict else None)
        return first, second

    return BeforeValidator(check)


def numbers(
    count: int, what: str, *, low: float, below: float | None = None, or_none: bool = False
) -> BeforeValidator:
    """Accept ``count`` numbers that are each at least ``low`` (and under ``below``), in any order.

    With ``or_none``, an empty list is None.
    """

    def check(value: Any) -> tuple[float, ...] | None:
        if or_none and value in (None, [], ()):
            return None
        items = tuple(_number_in(item, what) for item in _items(value, what, count))
        if any(item < low or (below is not None and item >= below) for item in items):
            raise requirement(what)
        return items

    return BeforeValidator(check)


def _number_in(item: Any, what: str) -> float:
    try:
        return _to_real(item)
    except PydanticCustomError:
        raise requirement(what) from None


def one_of(*choices: str, meant: Mapping[str, str] | None = None, or_none: bool = False) -> BeforeValidator:
    """Accept what ``word_of`` does."""
    return BeforeValidator(word_of(*choices, meant=meant, or_none=or_none))


def word_of(
    *choices: str, meant: Mapping[str, str] | None = None, or_none: bool = False
) -> Callable[[Any], str | None]:
    """Make a function that accepts a word of ``choices``; the error carries them so that the nearest can be named.

    ``meant``: other words, as of flags, to the choices that they stand for; null is such a word too.
    With ``or_none``, null and blanks are none.
    """

    def check(value: Any) -> str | None:
        if or_none and (value is None or (isinstance(value, str) and not value.strip())):
            return None
        if meant is not None and isinstance(value, (bool, int, str, type(None))):
            word = str(value).lower()
            value = meant.get(word, word)
        if value not in choices:
            raise PydanticCustomError("choice", "one of the choices", {"choices": list(choices)})
        return str(value)

    # Kept on the function for the help text and the page of all keys: see the function `choices`.
    check.choices = choices  # type: ignore[attr-defined]
    return check


def several(one: Callable[[Any], Any]) -> BeforeValidator:
    """Accept one value or a list of several, each of which ``one`` converts; null, blanks and an empty list are None."""

    def check(value: Any) -> tuple[Any, ...] | None:
        items = list(value) if isinstance(value, (list, tuple)) else [value]
        blank = all(item is None or (isinstance(item, str) and not item.strip()) for item in items)
        return None if blank else tuple(one(item) for item in items)

    check.choices = getattr(one, "choices", ())  # type: ignore[attr-defined]
    return BeforeValidator(check)


def whole_numbers(low: int) -> BeforeValidator:
    """Accept any number of whole numbers, each at least ``low``."""
    what = f"a list of whole numbers, each at least {low}"

    def check(value: Any) -> tuple[int, ...]:
        try:
            items = tuple(_to_whole(item) for item in _items(value, what))
        except PydanticCustomError:
            raise requirement(what) from None
        if any(item < low for item in items):
            raise requirement(what)
        return items

    return BeforeValidator(check)


def _axes(value: Any) -> str | None:
    """Parse two different axes with or without a sign, as in 'z,-y'; spaces and plus signs are dropped."""
    if value is None or value == "":
        return None
    axes = up_and_front(value) if isinstance(value, str) else None
    if axes is None:
        raise requirement("the axes that point up and to the front, such as 'y,z' or 'z,-y'")
    return axes


def _optional(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else convert(value)


def _to_text_or_none(value: Any) -> str | None:
    """Text as it is; null and blanks are none, so that a flag can take back what a file has."""
    return None if value is None or not _to_text(value).strip() else _to_text(value)


Whole = Annotated[int, BeforeValidator(_to_whole)]
Real = Annotated[float, BeforeValidator(_to_real)]
Flag = Annotated[bool, BeforeValidator(_to_flag)]
Text = Annotated[str, BeforeValidator(_to_text)]
OptionalWhole = Annotated[int | None, BeforeValidator(_optional(_to_whole))]
OptionalReal = Annotated[float | None, BeforeValidator(_optional(_to_real))]
OptionalFlag = Annotated[bool | None, BeforeValidator(_optional(_to_flag))]
OptionalText = Annotated[str | None, BeforeValidator(_to_text_or_none)]
OptionalAxes = Annotated[str | None, BeforeValidator(_axes)]
Texts = Annotated[tuple[str, ...] | None, several(_to_text)]
Reals = Annotated[tuple[float, ...] | None, several(_to_real)]
