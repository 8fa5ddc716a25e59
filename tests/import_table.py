"""The folders of the code, what each may import, and what each does import: the one list of folders.

Tests hold the linters' settings, Ray's shipping and the promises of SECURITY.md to it; docs/imports.svg is drawn from it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
NETWORK = {"utils", "config", "guidance", "guidance.prior"}
ASSET = {"utils", "config", "scene", "gaussian_renderer"}
RUN = ASSET | NETWORK | {"training"}

MAY_IMPORT: dict[str, set[str]] = {
    "toybox": set(),
    "point_e": set(),
    "simple_knn": set(),
    "diff_gaussian_rasterization": set(),
    "utils": set(),
    "config": {"utils"},
    "scene": {"utils", "config", "simple_knn", "point_e", "toybox", "diff_gaussian_rasterization"},
    "gaussian_renderer": {"utils", "config", "scene", "diff_gaussian_rasterization"},
    "guidance": {"utils", "config"},
    "guidance.prior": {"utils", "config", "guidance", "toybox"},
    "toybox.lab": ASSET | NETWORK | {"toybox", "point_e"},
    "training": ASSET | NETWORK,
    "viewer": ASSET,
    "exporting": {"utils", "scene", "gaussian_renderer"},
    "train": (RUN | {"viewer", "toybox.lab"}) - {"gaussian_renderer", "guidance"},
    "export": {"utils", "scene", "exporting"},
    "view": {"utils", "config", "scene", "viewer"},
    "evaluation": RUN | {"train", "toybox", "toybox.lab"},
    "evaluate": {"utils", "config", "evaluation"},
    "benchmarks": RUN
    | {"train", "viewer", "exporting", "evaluation", "toybox", "toybox.lab", "point_e", "simple_knn"}
    | {"diff_gaussian_rasterization"},
}
"""Dotted name of a folder or a command -> those that it may import beside itself."""
PACKAGES = {"toybox": "toybox", "point_e": "point-e", "simple_knn": "simple-knn"} | {
    "diff_gaussian_rasterization": "diff-gaussian-rasterization"
}
"""Import name of each package under submodules/ -> its folder there."""
COMMANDS = ("train", "evaluate", "export", "view")
ON_THE_PATH = ("benchmarks",)
"""Folders whose own modules import each other without the folder's name."""


def folder_of(row: str) -> Path:
    """The folder of a row of MAY_IMPORT, or the file of a command."""
    first, *rest = row.split(".")
    if first in COMMANDS:
        return ROOT / f"{first}.py"
    base = ROOT / "submodules" / PACKAGES[first] if first in PACKAGES else ROOT
    return base.joinpath(first, *rest)


def top_level() -> list[str]:
    """Paths, from the root, of the folders and commands that are not inside another row."""
    return [folder_of(row).relative_to(ROOT).as_posix() for row in MAY_IMPORT if "." not in row]


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file of every module."""
    found: dict[str, Path] = {}
    for row in (row for row in MAY_IMPORT if "." not in row):
        place = folder_of(row)
        base = place if row in ON_THE_PATH else place.parent
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def row_of(module: str) -> str:
    """The row that a module belongs to: the longest one that its name begins with."""
    path = modules()[module]
    if any(path.is_relative_to(ROOT / folder) for folder in ON_THE_PATH):
        return path.relative_to(ROOT).parts[0]
    parts = module.split(".")
    return next(row for end in range(len(parts), 0, -1) if (row := ".".join(parts[:end])) in MAY_IMPORT)


@cache
def imports_of(module: str) -> frozenset[str]:
    """The modules of ours that one imports, at any depth, also for type checking.

    `from package import name` is an import of package.name where that is a module, else of the package.
    """
    return frozenset(name for name in imported(modules()[module], module) if name in modules())


def imported(path: Path, module: str = "") -> Iterator[str]:
    """Dotted names of all that a file imports. module: its own name, for relative imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
            above = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*above, *(node.module or "").split(".")]).strip(".")
            for alias in node.names:
                full = f"{source}.{alias.name}"
                yield full if full in modules() else source
