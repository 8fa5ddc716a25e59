"""Layout of a run's files, known to users of LucidDreamer and SegmentDreamer."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from utils.files import UNFINISHED

OUTPUTS = Path("outputs")
LOCK = ".lock"


@dataclass(frozen=True)
class RunFolder:
    """The names of a run's outputs under `root`; nothing is made before it is written."""

    root: Path

    @classmethod
    def create(cls, workspace: str, label: str, outputs: Path = OUTPUTS) -> RunFolder:
        """Make outputs/<workspace>/<label>-<date and time>, a name that no other run has.

        Both names are reduced to what is safe in a path.
        """
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        return cls.unused(outputs / slug(workspace) / f"{slug(label)}-{stamp}")

    @classmethod
    def unused(cls, base: Path) -> RunFolder:
        """Make the folder `base`, or that name with the first number that is free. Raises OSError, one sentence."""
        for number in range(1, 1000):
            root = base if number == 1 else base.with_name(f"{base.name}-{number}")
            try:
                root.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise OSError(
                    f"{base.parent} cannot be written ({error.strerror}), but a run's files go there."
                ) from None
            return cls(root)
        raise FileExistsError(f"{base} and 999 names like it exist already; choose another workspace.")

    def remove_if_empty(self) -> None:
        """Remove the folder if it holds nothing but its lock."""
        names = {path.name for path in self.root.iterdir()} if self.root.is_dir() else {"gone"}
        if names <= {LOCK}:
            (self.root / LOCK).unlink(missing_ok=True)
            self.root.rmdir()

    def remove_leftovers(self) -> None:
        """Remove the files that a process which was killed had begun to write here."""
        for path in self.root.rglob(UNFINISHED):
            path.unlink(missing_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out. Raises BlockingIOError, one sentence, if one is at work in this folder."""
        with open(self.root / LOCK, "w", encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BlockingIOError(
                    f"{self.root} belongs to a run that is still going: wait for it, or stop it."
                ) from None
            yield

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def cfg_args(self) -> Path:
        """File for Inria's viewer."""
        return self.root / "cfg_args"

    @property
    def cameras(self) -> Path:
        return self.root / "cameras.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of the last checkpoints."""
        return self.root / "checkpoints"

    @property
    def start(self) -> Path:
        """Picture of the Gaussians that training starts from."""
        return self.root / "start.png"

    @property
    def skeleton(self) -> Path:
        """Joints of the body that the run starts from, in the asset's coordinates; their skin lies beside it."""
        return self.root / "skeleton.json"

    @property
    def asset(self) -> Path:
        """Gaussians at the end."""
        return self.root / "save" / "asset.ply"

    @property
    def result(self) -> Path:
        """Cost of the run, written last: a run without it is not finished."""
        return self.root / "result.json"

    @property
    def log(self) -> Path:
        """Output of a run that nobody watched."""
        return self.root / "train.log"

    @property
    def report(self) -> Path:
        return self.root / "render_report.png"

    @property
    def page(self) -> Path:
        """Page about the whole run."""
        return self.root / "report.html"

    @property
    def process_video(self) -> Path:
        return self.root / "process_videos" / "video_rgb.mp4"

    @property
    def process_frames(self) -> Path:
        """Folder where the frames of `process_video` wait for its end."""
        return self.process_video.parent / "frames"

    def process_frame(self, index: int) -> Path:
        return self.process_frames / f"{index:05d}.png"

    def point_cloud(self, step: int) -> Path:
        return self.root / "point_cloud" / f"iteration_{step}" / "point_cloud.ply"

    def newest_gaussians(self) -> Path:
        """Return the asset, or of a run without one its last point cloud.

        Raises FileNotFoundError, one sentence, if there is none.
        """
        if self.asset.is_file():
            return self.asset
        files = self.root.glob("point_cloud/iteration_*/point_cloud.ply")
        steps = ((re.fullmatch(r"iteration_(\d{1,9})", file.parent.name), file) for file in files)
        saved = [(int(step[1]), file) for step, file in steps if step is not None]
        if not saved:
            raise FileNotFoundError(
                f"{str(self.root)!r} holds no Gaussians yet: give a run's folder that has a save/asset.ply or "
                "a point_cloud/iteration_N, or a file of Gaussians."
            )
        return max(saved)[1]

    def train_picture(self, step: int) -> Path:
        return self.root / "train_process" / f"iteration_{step}.png"

    def test_view(self, step: int, azimuth: float) -> Path:
        return self.root / "test_six_views" / f"{step}_iteration" / f"view_{round(azimuth) % 360:03d}.png"

    def video(self, step: int, kind: str) -> Path:
        """Video at an iteration; kind: 'rgb' or 'depth'."""
        return self.root / "videos" / f"{step}_iteration" / f"video_{kind}_{step}.mp4"


def slug(text: str, limit: int = 60) -> str:
    """Make lower-case words joined by '-', safe as a file name; 'run' if nothing is left."""
    return "-".join(re.findall(r"[a-z0-9_]+", text.lower()))[:limit].strip("-") or "run"
