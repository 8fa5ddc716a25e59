"""From a model key to the files of a diffusers folder on this disk, downloading them if need be."""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path

from utils.files import digest_of_file

logger = logging.getLogger(__name__)

TOYBOX = "toybox"
WAYS_OUT = (
    "give another hub id, a local folder in diffusers layout, or --model_key toybox, which needs no download"
)
# What each component's weights are called, by file format.
WEIGHT_STEMS = {
    "unet": {"safetensors": "diffusion_pytorch_model", "bin": "diffusion_pytorch_model"},
    "vae": {"safetensors": "diffusion_pytorch_model", "bin": "diffusion_pytorch_model"},
    "text_encoder": {"safetensors": "model", "bin": "pytorch_model"},
}
TOKENIZER_FILES = ({"tokenizer/tokenizer.json"}, {"tokenizer/vocab.json", "tokenizer/merges.txt"})
SCHEDULER_CONFIG = "scheduler/scheduler_config.json"


class PriorError(Exception):
    """A prior cannot be loaded; the message is one sentence for the user."""


@dataclass(frozen=True)
class WeightFile:
    """One component's weights: path inside the folder, diffusers' name for the variant, and the format."""

    path: str
    variant: str | None
    safetensors: bool


@dataclass(frozen=True)
class ModelFolder:
    """A complete diffusers folder on this disk and the weights chosen in it, by component."""

    path: Path
    weights: dict[str, WeightFile]


def find_model(model_key: str, *, half: bool) -> ModelFolder:
    """The folder that a model key stands for.

    Args:
        model_key: 'toybox', a local folder in diffusers layout, or a hub id.
        half: prefer weights stored in half precision, where both are there.
    Raises: PriorError if it is nowhere, or incomplete.
    """
    if model_key == TOYBOX:
        return _complete(_toybox_folder(), model_key, half)
    local = Path(model_key).expanduser()
    if local.is_dir():
        return _complete(local, model_key, half)
    model_key = current_id(model_key)
    if local.is_file():
        raise PriorError(f"model_key '{model_key}' is a single file, not a diffusers folder; {WAYS_OUT}.")
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", model_key):
        raise PriorError(f"model_key '{model_key}' is neither a folder here nor a hub id; {WAYS_OUT}.")
    cached = _cached_folder(model_key)
    if cached is not None and not _missing(_files(cached), half):
        return _complete(cached, model_key, half)
    return _complete(_download(model_key, half), model_key, half)


def current_id(model_key: str) -> str:
    """Where Stability AI's withdrawn Stable Diffusion 2 repositories live on; any other key unchanged."""
    if not model_key.startswith("stabilityai/stable-diffusion-2"):
        return model_key
    moved = model_key.replace("stabilityai/", "sd2-community/", 1)
    logger.warning("model_key %s is no longer on the hub; using the same weights from %s", model_key, moved)
    return moved


def _toybox_folder() -> Path:
    try:
        import toybox
    except ModuleNotFoundError:
        raise PriorError(
            "model_key 'toybox' needs the toybox package, which is not installed here; "
            "run pip install submodules/toybox."
        ) from None
    return Path(toybox.weights_path())


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.glob("*/*") if path.is_file()}


def _choose_weights(files: set[str], component: str, half: bool) -> WeightFile | None:
    """The component's weights among `files`: safetensors before pickles, then the wanted precision."""
    variants = ["fp16", None] if half else [None, "fp16"]
    for extension, stem in WEIGHT_STEMS[component].items():
        for variant in variants:
            path = f"{component}/{stem}{'.' + variant if variant else ''}.{extension}"
            if path in files:
                return WeightFile(path, variant, extension == "safetensors")
    return None


def _missing(files: set[str], half: bool) -> list[str]:
    """What a diffusers folder with these files lacks."""
    needed = [f"{component}/config.json" for component in WEIGHT_STEMS] + [SCHEDULER_CONFIG]
    missing = [path for path in needed if path not in files]
    for component, stems in WEIGHT_STEMS.items():
        if _choose_weights(files, component, half) is None:
            missing.append(f"{component}/{stems['safetensors']}.safetensors")
    if not any(names <= files for names in TOKENIZER_FILES):
        missing.append("tokenizer/tokenizer.json")
    return missing


def _complete(folder: Path, model_key: str, half: bool) -> ModelFolder:
    files = _files(folder)
    missing = _missing(files, half)
    if missing:
        raise PriorError(f"model_key '{model_key}' lacks {', '.join(missing)} in {folder}; {WAYS_OUT}.")
    chosen = {component: _choose_weights(files, component, half) for component in WEIGHT_STEMS}
    return ModelFolder(folder, {name: weights for name, weights in chosen.items() if weights is not None})


def _cached_folder(repo: str) -> Path | None:
    """The hub's cached snapshot of a repository, complete or not."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, local_files_only=True, allow_patterns=[SCHEDULER_CONFIG]))
    except LocalEntryNotFoundError:
        return None


def _download(repo: str, half: bool) -> Path:
    """Fetch what `_complete` asks for, and nothing else, into the hub's cache."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import DryRunError, HTTPError

    looked = f"model_key '{repo}' is neither a folder here nor in the cache folder {constants.HF_HUB_CACHE}"
    if constants.HF_HUB_OFFLINE:
        raise PriorError(f"{looked} and HF_HUB_OFFLINE forbids to download it; {WAYS_OUT}.")
    try:
        listing = snapshot_download(repo, dry_run=True)
        files = {info.filename: info for info in listing}
        missing = _missing(set(files), half)
        if missing:
            raise PriorError(f"model_key '{repo}' lacks {', '.join(missing)} on the hub; {WAYS_OUT}.")
        chosen = [_choose_weights(set(files), component, half) for component in WEIGHT_STEMS]
        wanted = [weights.path for weights in chosen if weights is not None]
        wanted += [f"{component}/config.json" for component in WEIGHT_STEMS] + [SCHEDULER_CONFIG]
        wanted += [path for path in files if path.startswith("tokenizer/")]
        size = sum(files[path].file_size or 0 for path in wanted)
        logger.warning("downloading %s (%.1f GB) to %s", repo, size / 1e9, constants.HF_HUB_CACHE)
        return Path(snapshot_download(repo, allow_patterns=wanted))
    except (HTTPError, OSError) as error:
        cause = error.__cause__ if isinstance(error, DryRunError) and error.__cause__ else error
        reason = f"{type(cause).__name__}: {cause}".splitlines()[0].rstrip(".")
        raise PriorError(f"{looked} and could not be fetched from the hub ({reason}); {WAYS_OUT}.") from None


def fingerprint(folder: ModelFolder) -> str:
    """SHA-256 over the names and contents of the files that a run depends on."""
    paths = [weights.path for weights in folder.weights.values()]
    paths += [
        path for path in _files(folder.path) if path.startswith("tokenizer/") or path.endswith("config.json")
    ]
    found = hashlib.sha256()
    for path in sorted(paths):
        found.update(f"{path} {_digest(folder.path / path)}\n".encode())
    return found.hexdigest()


def _digest(path: Path) -> str:
    """SHA-256 of a file, by which the hub's cache calls large ones already."""
    name = path.resolve().name
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else digest_of_file(path)
