"""Configuration files: YAML text to plain sections of keys and values, unknown names refused."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from config.errors import ConfigError, nearest, show
from config.schema import SECTIONS, keys_of

PRESET_FOLDER = Path(__file__).parent
LARGEST_FILE = 65_536  # bytes; the originals' files have 2,000, and one that names every key 6,000
LARGEST_MAPPING = 500  # keys; the largest section has 60

Values = dict[str, dict[str, Any]]
"""YAML section name ('' for the top of the file) -> key -> raw value."""


class _NamedTwice(yaml.YAMLError):
    """A key that a mapping has twice; YAML would silently take the last one. The message is the rest of a sentence."""


class _BoundedLoader(yaml.SafeLoader):
    """YAML loader like ``yaml.safe_load``, but nested merge keys (``<<``) cannot grow a small file without end, and no key
    of a mapping may come twice."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            # A mapping may have several merge keys.
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                line = key.start_mark.line + 1
                if key.value in lines:
                    raise _NamedTwice(
                        f"has {key.value} twice, in lines {lines[key.value]} and {line}: keep one"
                    )
                lines[key.value] = line
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > LARGEST_MAPPING:
            problem = f"a mapping of more than {LARGEST_MAPPING} keys"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def read(path: str | os.PathLike[str], *, base: bool = False) -> Values:
    """Read the keys and values of a configuration file, by section. Raises ``ConfigError``.

    A file may name another beside it as its ``base``, whose keys hold where it has none; a ``base`` has none itself.
    """
    content = _parse(_text_of(path), str(path))
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path} holds {show(content)}, but must hold sections of keys, such as 'GuidanceParams:' "
            "with 'text: a red mug' indented below it."
        )
    values: Values = {section: {} for section in ("", *SECTIONS)}
    if "base" in content:
        below = content.pop("base")
        if base or not isinstance(below, str) or not below.strip():
            wrong = "itself a base" if base else "no name of a file"
            raise ConfigError(
                f"{path} has base {show(below)}, but is {wrong}: base names a YAML file beside it, which has none."
            )
        values = read(Path(path).parent / below, base=True)
    for name, value in content.items():
        if name in SECTIONS:
            values[name] |= _section(str(name), value)
        else:
            check_key("", name)
            values[""][name] = value
    return values


def _text_of(path: str | os.PathLike[str]) -> str:
    if not str(path).strip():
        raise ConfigError(f"--opt is {show(str(path))}, but must be the path of a YAML file.")
    if Path(path).is_fifo() and not str(path).startswith("/dev/"):
        # Opening it would wait for a writer. Those under /dev, such as a shell's <(...), have one.
        raise ConfigError(f"--opt {path} is a named pipe, which may have no end: name a YAML file.")
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        presets = {preset.stem: preset.name for preset in PRESET_FOLDER.glob("*.yaml")}
        name = presets[nearest(Path(path).stem, presets)]
        raise ConfigError(f"--opt {path} does not exist; the nearest preset is config/{name}.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"--opt {path} cannot be read ({reason}): name a YAML file.") from None
    if len(content) > LARGEST_FILE:
        raise ConfigError(f"{path} has more than {LARGEST_FILE} bytes, but must be a short file of keys.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text in UTF-8 (byte {error.start}): save it as UTF-8.") from None


def _parse(text: str, path: str) -> Any:
    try:
        return yaml.load(text, Loader=_BoundedLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{place} is not YAML: {error.problem or error.context}.") from None
    except _NamedTwice as error:
        raise ConfigError(f"{path} {error}.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}.") from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply to be a configuration.") from None
    except ValueError as error:
        raise ConfigError(f"{path} has a value that YAML cannot read: {error}.") from None


def _section(name: str, keys: Any) -> dict[str, Any]:
    if keys is None:
        return {}
    if not isinstance(keys, Mapping):
        raise ConfigError(
            f"{name} is {show(keys)}, but must be a section of keys, each on a line of its own, indented: "
            f"'{keys_of(name)[0]}: ...'."
        )
    for key in keys:
        check_key(name, key)
    return dict(keys)


def check_key(section: str, key: Any) -> None:
    """Refuse a ``key`` that is not one of ``section`` ('' for the top of the file), with ``ConfigError``."""
    if key in keys_of(section):
        return
    word = key if isinstance(key, str) else show(key)
    label = f"{section}.{word}" if section else word
    homes = [home for home in ("", *SECTIONS) if word in keys_of(home)]
    if homes:
        place = f"the section {homes[0]}" if homes[0] else "the top of the file"
        raise ConfigError(f"{show(label)[1:-1]} is in the wrong place: {word} belongs to {place}.")
    if section:
        closest = f"{section}.{nearest(word, keys_of(section))}"
    else:
        closest = nearest(word, [*keys_of(""), *SECTIONS])
    kind = "key" if section else "key or section"
    raise ConfigError(f"{show(label)[1:-1]} is not a {kind}; the nearest is {closest}.")
