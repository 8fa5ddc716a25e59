"""The direction of imports, and the one place that knows the names of devices."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "utils": set(),
    "config": {"utils"},
    "scene": {"utils", "config"},
    "gaussian_renderer": {"utils", "config", "scene"},
    "guidance": {"utils", "config"},
    "exporting": {"utils", "scene", "gaussian_renderer"},
    "viewer": {"utils", "config", "scene", "gaussian_renderer"},
    "training": {"utils", "config", "scene", "gaussian_renderer", "guidance"},
    "evaluation": {"utils", "config", "scene", "gaussian_renderer", "guidance", "train"},
}
FILES = [path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]


def imported(tree: ast.AST) -> set[str]:
    """First components of the names of all modules that are imported, at any depth, also for type
    checking."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.add(str(node.module).split(".")[0])
    return names


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    ours = {*MAY_IMPORT, "train"}
    wrong = (imported(ast.parse(path.read_text())) & ours) - MAY_IMPORT[package] - {package}
    assert not wrong, f"{package} must not import {sorted(wrong)}"


@pytest.mark.parametrize("path", (ROOT / "evaluation").rglob("*.py"), ids=name_of)
def test_evaluation_needs_toybox_for_its_own_assets_only(path: Path) -> None:
    at_the_top = ast.Module(
        [node for node in ast.parse(path.read_text()).body if isinstance(node, (ast.Import, ast.ImportFrom))],
        [],
    )
    assert "toybox" not in imported(at_the_top)


@pytest.mark.parametrize("path", [*FILES, *ROOT.glob("*.py")], ids=name_of)
def test_devices_are_named_in_one_place(path: Path) -> None:
    if path == ROOT / "utils" / "device.py":
        return
    tree = ast.parse(path.read_text())
    literals = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert not literals & {"cuda", "cpu"}
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert "cuda" not in attributes


def test_the_configuration_does_not_need_torch() -> None:
    for path in (ROOT / "config").rglob("*.py"):
        assert "torch" not in imported(ast.parse(path.read_text())), path
