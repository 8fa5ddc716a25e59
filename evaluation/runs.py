"""Finished runs: what their folders hold, and how one is found again by its whole configuration."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import config as configuration
from config import Config
from utils.run_cost import RunCost
from utils.run_folder import OUTPUTS, RunFolder, slug

WORKSPACE = "runs"
"""Workspace of the runs of suites, so that two suites share those that they have in common."""


@dataclass(frozen=True)
class Outcome:
    """A finished run: its files, and what it took."""

    folder: RunFolder
    cost: RunCost

    @classmethod
    def read(cls, root: Path) -> Outcome:
        """Read the run under `root`.

        Raises OSError if it is not finished, ValueError if its file of costs is another's.
        """
        folder = RunFolder(root)
        for path in (folder.config, folder.asset):
            path.stat()
        return cls(folder, RunCost.read(folder.result))

    @property
    def config(self) -> Config:
        return configuration.of_file(self.folder.config)


def finished_under(path: Path) -> list[Outcome]:
    """The finished run in a folder, or all finished runs in the folders below it, by name.

    Raises ValueError, one sentence, if there are none.
    """
    if not path.is_dir():
        raise ValueError(f"{path} is no folder: name that of a run, or one that holds runs.")
    if RunFolder(path).config.exists():
        try:
            return [Outcome.read(path)]
        except OSError as error:
            missing = Path(error.filename).name
            raise ValueError(f"{path} has no {missing}: the run is not finished, repeat it.") from None
    found = [outcome for root in _roots(path) if (outcome := _outcome(root))]
    if not found:
        raise ValueError(
            f"{path} holds no finished run: one has config.yaml, save/asset.ply and result.json."
        )
    return found


def _roots(path: Path) -> list[Path]:
    return sorted(file.parent for file in path.rglob(RunFolder(Path()).result.name))


def _outcome(root: Path) -> Outcome | None:
    try:
        return Outcome.read(root)
    except (OSError, ValueError):
        return None


def key_of(config: Config) -> str:
    """Twelve characters that stand for a whole configuration."""
    return _key(configuration.dump(config).encode())


def _key(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:12]


class Archive:
    """Archive of the finished runs under outputs/<workspace>.

    It knows nothing of the code: remove them after a change to it.
    """

    def __init__(self, workspace: str = WORKSPACE, outputs: Path = OUTPUTS) -> None:
        self.root = outputs / slug(workspace)
        self._folders: dict[str, Path] = {}
        for root in _roots(self.root):
            self.add(root)

    def add(self, root: Path) -> None:
        """Add a run that is finished; of two of one configuration the first counts."""
        try:
            self._folders.setdefault(_key(RunFolder(root).config.read_bytes()), root)
        except OSError:
            return

    def find(self, config: Config) -> Outcome | None:
        """The finished run of that very configuration, if there is one and its files are there."""
        root = self._folders.get(key_of(config))
        return _outcome(root) if root else None
