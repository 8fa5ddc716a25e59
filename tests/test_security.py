"""Promises of SECURITY.md, held by the code."""

from __future__ import annotations

import ast

import pytest

from tests.import_table import ROOT, modules

FILES = [*modules().values(), ROOT / "conftest.py"]
RUNS_CODE = {"eval", "exec", "compile", "__import__"}
RUNS_SHELL = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
UNPICKLES = {"pickle.load", "pickle.loads", "pickle.Unpickler", "dill.load", "joblib.load", "shelve.open"}
LISTENS = {"socket", "socketserver", "http.server", "xmlrpc.server", "asyncio.start_server"}


def name_of(node: ast.AST) -> str:
    """Dotted name of what is called; '' for other expressions."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{name_of(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def faults(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names]
            )
            found += [f"imports {name}" for name in names if name in LISTENS]
        if not isinstance(node, ast.Call):
            continue
        name, keys = name_of(node.func), {word.arg: word.value for word in node.keywords}
        if name in RUNS_CODE | RUNS_SHELL | UNPICKLES:
            found.append(name)
        if name == "torch.load" and not _is(keys.get("weights_only"), True):
            found.append("torch.load without weights_only=True")
        if name in ("yaml.load", "yaml.load_all") and "Loader" not in keys:
            found.append(f"{name} without a loader")
        for key, wrong in (
            ("shell", True),
            ("allow_pickle", True),
            ("trust_remote_code", True),
            ("verify", False),
        ):
            if key in keys and not _is(keys[key], not wrong):
                found.append(f"{name} with {key}")
    return found


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def test_no_file_runs_code_that_it_was_given() -> None:
    found = {path.relative_to(ROOT): faults(path.read_text()) for path in FILES}
    assert not {path: each for path, each in found.items() if each}


@pytest.mark.parametrize(
    "source",
    [
        *("eval(x)", "exec(open(x).read())", "import os\nos.system(x)", "pickle.load(f)", "torch.load(f)"),
        *(
            "torch.load(f, weights_only=False)",
            "np.load(f, allow_pickle=True)",
            "run(x, shell=True)",
            "yaml.load(x)",
        ),
        *(
            "AutoModel.from_pretrained(x, trust_remote_code=True)",
            "import socket",
            "from http.server import HTTPServer",
        ),
    ],
)
def test_the_check_sees(source: str) -> None:
    assert faults(source)


def test_yaml_is_loaded_safely() -> None:
    import yaml

    from config.yaml_file import _BoundedLoader

    assert issubclass(_BoundedLoader, yaml.SafeLoader)
