"""Faults put into guidance/ by the tests themselves: a piece of source replaced by another, for as long as a test runs."""

from __future__ import annotations

import importlib
import inspect
import sys

import pytest

import guidance


def mutate(monkeypatch: pytest.MonkeyPatch, module: str, old: str, new: str) -> None:
    """Run guidance/`module`.py with `old`, which must be in it exactly once, replaced by `new`."""
    name = f"guidance.{module}"
    original = importlib.import_module(name)
    source = inspect.getsource(original)
    assert source.count(old) == 1, f"{old!r} is {source.count(old)} times in guidance/{module}.py"
    mutant = dict(vars(original))
    exec(compile(source.replace(old, new), original.__file__ or name, "exec"), mutant)
    for package in [found for key, found in sys.modules.items() if key.split(".")[0] == "guidance"]:
        for attribute, value in list(vars(package).items()):
            if getattr(value, "__module__", None) == name and callable(value):
                monkeypatch.setattr(package, attribute, mutant[attribute])
    for method, value in list(guidance.METHODS.items()):
        if getattr(value, "__module__", None) == name:
            monkeypatch.setitem(guidance.METHODS, method, mutant[value.__name__])  # type: ignore[attr-defined]
