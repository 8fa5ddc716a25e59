"""Files of a model in one of diffusers' pipelines: found by a model key, and downloaded if need be."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from config.guidance_params import TOYBOX_FLOW
from guidance.prior.family import MODEL_INDEX, SCHEDULER_CONFIG, misfit_of_scheduler
from guidance.prior.hub_ids import homes_of
from guidance.prior.model_files import PriorError, fingerprint, local_path, logger

WEIGHTS = (".safetensors", ".bin")


@dataclass(frozen=True)
class PipelineFolder:
    """A folder in diffusers layout.

    Attributes:
        key: the model key, for messages.
        path: of the folder.
        half: prefer weights stored in half precision.
    """

    key: str
    path: Path
    half: bool

    @cached_property
    def parts(self) -> dict[str, tuple[str | None, str | None]]:
        """Library and class of each part that model_index.json names; None and None for one that is left out."""
        index = json.loads((self.path / MODEL_INDEX).read_text(encoding="utf-8"))
        return {name: (made[0], made[1]) for name, made in index.items() if isinstance(made, list)}

    def home(self, part: str) -> Path:
        """Return the folder that a part's folder is in: toybox's flow has the autoencoder of its U-Net, one up."""
        return self.path.parent if (self.key, part) == (TOYBOX_FLOW, "vae") else self.path

    def config(self, part: str) -> dict[str, Any]:
        """Read a part's configuration."""
        found = json.loads((self.home(part) / part / "config.json").read_text(encoding="utf-8"))
        assert isinstance(found, dict)
        return found

    def variant(self, part: str) -> dict[str, str]:
        """Return diffusers' name of the weights to read: those in half precision where they are wanted and there."""
        return {"variant": "fp16"} if self.half and self._has(part, ".fp16.") else {}

    def _has(self, part: str, mark: str) -> bool:
        return any(mark in path.name for path in self.home(part).glob(f"{part}/*") if path.suffix in WEIGHTS)

    def files(self, *parts: str) -> dict[str, Path]:
        """Return the files of parts that a run depends on, by their path in the folder, and the scheduler's."""
        found = {SCHEDULER_CONFIG: self.path / SCHEDULER_CONFIG}
        for part in parts:
            home, marked = self.home(part), bool(self.variant(part))
            for path in sorted(home.glob(f"{part}/*")):
                other = path.suffix in WEIGHTS and (".fp16." in path.name) != marked
                if path.is_file() and not other:
                    found[path.relative_to(home).as_posix()] = path
        return found

    def fingerprint(self, *parts: str) -> str:
        """Digest of the configurations of the pipeline and of parts, the same for weights of every precision."""
        configs = {f"{part}/config.json": self.home(part) / part / "config.json" for part in parts}
        return fingerprint({MODEL_INDEX: self.path / MODEL_INDEX, **configs})

    def _encoders(self) -> list[str]:
        named = [name for name in self.parts if name.startswith(("text_encoder", "tokenizer"))]
        return [name for name in named if self.parts[name][0] is not None]

    def missing_encoders(self) -> list[str]:
        """List the text encoders and tokenizers that are named but not here."""
        return [
            name
            for name in self._encoders()
            if not (
                any(self.path.glob(f"{name}/*.*")) if name.startswith("tokenizer") else self._weighs(name)
            )
        ]

    def _weighs(self, part: str) -> bool:
        return any(path.suffix in WEIGHTS for path in self.home(part).glob(f"{part}/*"))

    def mark_of_encoders(self) -> str:
        """Digest of the text encoders' files, by the hub's checksums or else by sizes and times: contents would take as
        long to read as the encoders. Blank where one is not here."""
        if self.missing_encoders():
            return ""
        found = hashlib.sha256()
        for name in sorted(self._encoders()):
            for path in sorted(self.path.glob(f"{name}/*")):
                about = path.stat()
                known = re.fullmatch(r"[0-9a-f]{64}", path.resolve().name)
                seen = path.resolve().name if known else f"{about.st_size} {about.st_mtime_ns}"
                found.update(f"{name}/{path.name} {seen}\n".encode())
        return found.hexdigest()


def pipeline_named(model_key: str) -> str:
    """Return the `_class_name` in the model_index.json of a folder or hub id; blank where there is none to be had."""
    path = _index(model_key)
    try:
        found = {} if path is None else json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return ""
    return str(found.get("_class_name", "")) if isinstance(found, dict) else ""


def _index(model_key: str) -> Path | None:
    local = local_path("model_key", model_key)
    if local.exists() or not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", model_key):
        return local / MODEL_INDEX if local.is_dir() else None
    return _snapshot(homes_of(model_key)[-1], [MODEL_INDEX])


def _snapshot(repo: str, patterns: list[str]) -> Path | None:
    """The file model_index.json of a repository on the hub, from the cache if it is there."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

    try:
        path = Path(snapshot_download(repo, local_files_only=True, allow_patterns=patterns)) / MODEL_INDEX
        if path.is_file():
            return path
    except LocalEntryNotFoundError:
        pass
    if constants.HF_HUB_OFFLINE:
        return None
    try:
        return Path(snapshot_download(repo, allow_patterns=patterns)) / MODEL_INDEX
    except (HTTPError, OSError):
        # Whoever looks for the whole model reports what is wrong.
        return None


def find_pipeline(model_key: str, core: str, *, half: bool) -> PipelineFolder:
    """Find the folder of a model whose network is called `core`, with all but its text encoders.

    Raises: PriorError, one sentence, if it is nowhere, incomplete or of a scheduler that is not read.
    """
    local = local_path("model_key", model_key)
    folder = PipelineFolder(model_key, local if local.is_dir() else _downloaded(model_key, half), half)
    needed = {SCHEDULER_CONFIG: folder.path} | {
        f"{part}/config.json": folder.home(part) for part in ("vae", core)
    }
    missing = [name for name, home in needed.items() if not (home / name).is_file()]
    missing += [f"the weights of {part}" for part in (core, "vae") if not folder._weighs(part)]
    missing += [name for name in (core, "vae") if name not in folder.parts]
    if missing:
        raise PriorError(f"model_key '{model_key}' lacks {', '.join(missing)} in {folder.path}.")
    stated = json.loads((folder.path / SCHEDULER_CONFIG).read_text(encoding="utf-8"))
    if why := misfit_of_scheduler(stated):
        raise PriorError(f"model_key '{model_key}' {why}.")
    return folder


def _downloaded(repo: str, half: bool) -> Path:
    """Fetch what diffusers would, into the hub's cache; from there alone where it is offline."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

    repo = homes_of(repo)[-1]
    left_out = ["*.bin", "*.onnx*", "*.msgpack", "*.ckpt", "*.md", "*.png", "*.jpg", "*.gif", "*non_ema*"]
    try:
        if constants.HF_HUB_OFFLINE:
            return Path(snapshot_download(repo, local_files_only=True))
        sizes = {info.filename: info.file_size or 0 for info in snapshot_download(repo, dry_run=True)}
        marked = {name.split("/")[0] for name in sizes if ".fp16." in name} if half else set[str]()
        wanted = [
            name
            for name in sizes
            if "/" in name or name == MODEL_INDEX
            if not any(Path(name).match(pattern) for pattern in left_out)
            if not name.endswith(".safetensors") or (".fp16." in name) == (name.split("/")[0] in marked)
        ]
        logger.warning("downloading %s (%.1f GB)", repo, sum(sizes[name] for name in wanted) / 1e9)
        return Path(snapshot_download(repo, allow_patterns=wanted))
    except (HTTPError, OSError, LocalEntryNotFoundError) as error:
        raise PriorError(
            f"model_key '{repo}' could not be fetched from the hub ({type(error).__name__}), and is not whole in the cache "
            f"folder {constants.HF_HUB_CACHE}; a gated model needs its licence accepted on the hub and huggingface-cli login."
        ) from None
