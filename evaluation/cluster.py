"""Runs as tasks of Ray, on this machine or on a cluster whose machines share no disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

from config import Config
from evaluation import work
from evaluation.spread import Attempt, Event, Failed, Made
from evaluation.work import Work
from utils.files import write_bytes
from utils.run_folder import OUTPUTS, RunFolder, slug

CHECKOUT = Path(__file__).parents[1]
LEFT_BEHIND = [".git", "benchmarks", "docs", "exporting", "outputs", "submodules"]
"""Folders that the machines of a cluster do not need, or have installed. They get the rest of the checkout with the job."""


@dataclass(frozen=True)
class Parcel:
    """Result that comes back from a machine.

    It holds the run folder's name, its files by their path in it, and what was printed. reason: why there is
    no run, if there is none.
    """

    name: str
    files: dict[str, bytes]
    log: bytes
    reason: str


class RayTasks:
    """Workers on Ray: one run for each GPU of a cluster, or for each core if it has none.

    address: "local" starts Ray on this machine. Raises ValueError, one sentence, if Ray is not installed or
    not to be reached.
    """

    def __init__(self, address: str, outputs: Path = OUTPUTS, task: Work = work.train_run) -> None:
        try:
            import ray
        except ModuleNotFoundError:
            raise ValueError('--ray needs Ray: python -m pip install -e ".[ray]".') from None
        self._ray: Any = ray
        self._outputs, self._task = outputs, task
        local = address == "local"
        environment = {} if local else {"working_dir": str(CHECKOUT), "excludes": LEFT_BEHIND}
        try:
            self._ray.init(None if local else address, runtime_env=environment, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ValueError(f"--ray {address} cannot be reached: {' '.join(str(error).split())}.") from None
        needs = {"num_gpus": 1} if self._ray.cluster_resources().get("GPU") else {"num_cpus": 1}
        # A worker makes one run: its peak memory is the run's own.
        self._remote = self._ray.remote(max_calls=1, max_retries=0, **needs)(_task)
        self._busy: dict[Any, Attempt] = {}

    free = True
    """True always: Ray keeps what it has no room for yet."""

    @property
    def busy(self) -> bool:
        return bool(self._busy)

    def start(self, attempt: Attempt) -> None:
        self._busy[self._remote.remote(self._task, attempt.run.config)] = attempt

    def wait(self) -> Iterator[Event]:
        for reference in self._ray.wait(list(self._busy), num_returns=1)[0]:
            attempt = self._busy.pop(reference)
            try:
                parcel = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                # What the worker printed is lost with it.
                write_bytes(attempt.log, str(error).encode())
                yield Failed(attempt, f"its task was lost to the cluster ({type(error).__name__})")
                continue
            write_bytes(attempt.log, parcel.log)
            if parcel.reason:
                yield Failed(attempt, parcel.reason)
            else:
                yield Made(attempt, unpack(parcel, attempt.run.config, self._outputs))

    def __enter__(self) -> RayTasks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._busy.clear()
        self._ray.shutdown()


def pack(root: Path) -> dict[str, bytes]:
    """The files of a run folder that a run is evaluated or looked at by, those that are there, the costs last."""
    run = RunFolder(root)
    paths = (run.config, run.asset, run.start, run.report, run.result)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths if path.exists()}


def unpack(parcel: Parcel, config: Config, outputs: Path) -> Path:
    """Write a parcel's files into a new run folder under `outputs`."""
    root = RunFolder.unused(outputs / slug(config.model.workspace) / parcel.name).root
    for path, content in parcel.files.items():
        write_bytes(root / path, content)
    return root


def _task(task: Work, config: Config) -> Parcel:
    with TemporaryDirectory() as folder:
        log = Path(folder) / "train.log"
        root, reason = work.attempt(task, config, Path(folder), lambda step: None, log)
        return Parcel(root.name if root else "", pack(root) if root else {}, log.read_bytes(), reason)
