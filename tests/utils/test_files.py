from __future__ import annotations

from pathlib import Path

import pytest

from utils.files import atomic_path


def fail_halfway(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("old")
        assert not path.exists()
        assert temporary.suffix == ".txt"
    with pytest.raises(RuntimeError):
        fail_halfway(path)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]
