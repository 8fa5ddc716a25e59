"""The dependencies, which pyproject.toml cannot name: it knows no path beside itself.

requirements.txt has them with the versions that are tested. Installed are the same packages in any version, and those under
submodules/ from this checkout.
"""

from __future__ import annotations

import re
from pathlib import Path

import tomllib
from setuptools import setup

ROOT = Path(__file__).parent.absolute()


def dependency(line: str) -> str:
    """A line of requirements.txt without its version, or with the address of the folder that it names."""
    if not line.startswith("./"):
        return re.sub("==[^;]+", "", line)
    folder = ROOT / line
    name = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
    return f"{name} @ {folder.as_uri()}"


lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
setup(install_requires=[dependency(line) for line in lines if line and not line.startswith("#")])
