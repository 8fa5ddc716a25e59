"""Configurations that differ from another one in a few keys."""

from __future__ import annotations

from config import Config
from config.schema import SECTIONS


def changed(config: Config, **keys: object) -> Config:
    """Return `config` with other values for `keys` of any section, which are not checked."""
    for held in SECTIONS.values():
        section = getattr(config, held)
        own = {name: keys.pop(name) for name in [*keys] if name in type(section).model_fields}
        config = config.model_copy(update={held: section.model_copy(update=own)})
    assert set(keys) <= set(Config.model_fields), keys
    return config.model_copy(update=keys)
