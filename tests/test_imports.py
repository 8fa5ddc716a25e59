"""The direction of imports, the one list of folders, and the one place that knows the names of devices."""

from __future__ import annotations

import ast
import subprocess
from graphlib import TopologicalSorter

import tomllib

from evaluation.cluster import LEFT_BEHIND
from tests import import_drawing, import_table
from tests.import_table import COMMANDS, MAY_IMPORT, PACKAGES, ROOT, imports_of, modules, row_of

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]


def test_the_table_has_every_file() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    code = {path for path in tracked.stdout.splitlines() if "tests" not in path.split("/")}
    known = {path.relative_to(ROOT).as_posix() for path in modules().values()}
    assert code - known == {
        "conftest.py",
        "docs/conf.py",
        *(path for path in code if path.endswith("setup.py")),
    }


def test_imports_are_those_of_the_table() -> None:
    rows = {(module, row_of(name)) for module in modules() for name in imports_of(module)}
    assert not {
        (module, row) for module, row in rows if row not in MAY_IMPORT[row_of(module)] | {row_of(module)}
    }
    unused = {(row, each) for row in MAY_IMPORT for each in MAY_IMPORT[row]}
    assert not unused - {(row_of(module), row) for module, row in rows}


def test_nothing_goes_round_in_circles() -> None:
    """Folders and modules have no circles; imports inside functions and for type checking count."""
    TopologicalSorter(MAY_IMPORT).prepare()
    TopologicalSorter({module: imports_of(module) for module in modules()}).prepare()


def test_the_drawing_shows_the_table() -> None:
    """`python -m tests.import_drawing` makes it anew; each row of the table has a box."""
    assert set(import_drawing.BOXES) == set(MAY_IMPORT)
    assert import_drawing.DRAWING.read_text(encoding="utf-8") == import_drawing.drawing()


def test_linters_know_every_folder() -> None:
    assert set(SETTINGS["mypy"]["files"]) == {*import_table.top_level(), "tests/programs"}
    first_party = set(SETTINGS["ruff"]["lint"]["isort"]["known-first-party"])
    top = {module.split(".")[0] for module in modules()}
    assert first_party <= top
    assert first_party >= {name.split(".")[0] for module in modules() for name in imports_of(module)}


def test_a_cluster_gets_what_a_run_needs_and_no_more() -> None:
    needed, found = {"evaluation"}, set[str]()
    while needed - found:
        found |= needed
        needed = {each for row in found for each in MAY_IMPORT[row]}
    top = {row for row in MAY_IMPORT if "." not in row and row not in (*PACKAGES, *COMMANDS)}
    assert {row for row in LEFT_BEHIND if row in top} == top - found
    assert {"submodules", "docs", "outputs", ".git"} <= set(LEFT_BEHIND)


def test_evaluation_needs_toybox_for_its_own_assets_only() -> None:
    for path in (ROOT / "evaluation").rglob("*.py"):
        kept = (ast.Import, ast.ImportFrom)
        at_the_top = ast.Module(
            [node for node in ast.parse(path.read_text()).body if isinstance(node, kept)], []
        )
        assert "import toybox" not in ast.unparse(at_the_top), path
        assert "from toybox" not in ast.unparse(at_the_top), path


def test_devices_are_named_in_one_place() -> None:
    free = {*PACKAGES, "toybox.lab", "benchmarks"}
    for module, path in modules().items():
        if row_of(module) in free or module == "utils.device":
            continue
        nodes = list(ast.walk(ast.parse(path.read_text())))
        literals = {node.value for node in nodes if isinstance(node, ast.Constant)}
        assert not literals & {"cuda", "cpu"}, path
        assert "cuda" not in {node.attr for node in nodes if isinstance(node, ast.Attribute)}, path


def test_the_configuration_does_not_need_torch() -> None:
    for path in (ROOT / "config").rglob("*.py"):
        assert "torch" not in {name.split(".")[0] for name in import_table.imported(path)}, path
