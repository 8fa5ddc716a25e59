"""Packages that `pip install -e ".[mesh]"` takes, against the pinned requirements, the folders, and the commands that pages and messages name."""

from __future__ import annotations

import re
import subprocess
import sys
from email import message_from_bytes
from pathlib import Path
from urllib.parse import unquote, urlparse

import tomllib
from packaging.requirements import Requirement

import export
from tests.import_table import COMMANDS, PACKAGES, ROOT, modules

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, SETUPTOOLS = SETTINGS["project"], SETTINGS["tool"]["setuptools"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def pinned(file: str) -> set[str]:
    """The packages that a file of requirements names itself, folders left out."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return {Requirement(line).name for line in lines if line[:1] not in ("", "#", ".", "-")}


def packages(extra: str) -> set[str]:
    """Packages of an extra and of the extras that it takes."""
    wanted = [Requirement(each) for each in EXTRAS[extra]]
    further = [packages(name) for each in wanted if each.name == PROJECT["name"] for name in each.extras]
    return {each.name for each in wanted if each.name != PROJECT["name"]}.union(*further)


def test_extras_are_pinned() -> None:
    assert packages("mesh") == set(export.LIBRARIES.values())
    assert packages("usd") == set(export.USD_LIBRARIES.values())
    assert packages("docs") == pinned("requirements-docs.txt")
    assert packages("test") == pinned("requirements-test.txt")


def test_an_installation_takes_the_required_packages_and_the_folders_of_submodules(tmp_path: Path) -> None:
    checkout = tmp_path / "a checkout"
    checkout.mkdir()
    for entry in ROOT.iterdir():
        if entry.suffix != ".egg-info":
            (checkout / entry.name).symlink_to(entry)
    script = "from setuptools import build_meta; build_meta.prepare_metadata_for_build_wheel('..')"
    subprocess.run([sys.executable, "-c", script], cwd=checkout, check=True, capture_output=True)
    [metadata] = tmp_path.glob("*.dist-info/METADATA")
    needed = [
        Requirement(line) for line in message_from_bytes(metadata.read_bytes()).get_all("Requires-Dist", [])
    ]
    base = [each for each in needed if each.marker is None]
    assert {each.name for each in base if each.url is None} == pinned("requirements.txt")
    assert not any(each.specifier for each in base)
    folders = {each.name: Path(unquote(urlparse(each.url).path)) for each in base if each.url}
    assert folders == {name: checkout / "submodules" / name for name in PACKAGES.values()}


def test_the_folders_of_the_project_are_its_packages() -> None:
    folders = {path.parent.relative_to(ROOT) for path in modules().values() if path.name == "__init__.py"}
    own = {
        ".".join(folder.parts) for folder in folders if folder.parts[0] not in ("submodules", "benchmarks")
    }
    assert own == set(SETUPTOOLS["packages"])
    assert set(COMMANDS) == set(SETUPTOOLS["py-modules"])


def test_only_extras_that_there_are_get_named() -> None:
    files = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *modules().values()]
    found = re.findall(
        r'pip install -e "?\S*?\[([\w,]+)\]', "".join(path.read_text(encoding="utf-8") for path in files)
    )
    assert len(found) > 5
    assert {name for each in found for name in each.split(",")} <= set(EXTRAS)
