"""Files of a diffusers folder on this disk, found by a model key and downloaded if need be."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
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
MODEL_INDEX = "model_index.json"


class PriorError(Exception):
    """Failure to load a prior; the message is one sentence for the user."""


@dataclass(frozen=True)
class WeightFile:
    """Weights of a component: path inside the folder, diffusers' name for the variant, and the format."""

    path: str
    variant: str | None
    safetensors: bool


@dataclass(frozen=True)
class ModelFolder:
    """A complete diffusers folder on this disk and the weights chosen in it, by component."""

    path: Path
    weights: dict[str, WeightFile]

    def files(self) -> dict[str, Path]:
        """Return all files that a run depends on, by what they are."""
        paths = {weights.path: self.path / weights.path for weights in self.weights.values()}
        return paths | settings_of(self.path)


@dataclass(frozen=True)
class SingleFile:
    """A .safetensors file with all networks, and the folder of the model that it was made from.

    The folder gives the networks' configuration, tokenizer and scheduler.
    """

    path: Path
    base: Path

    def files(self) -> dict[str, Path]:
        """Return all files that a run depends on, by what they are."""
        return {"single file": self.path} | settings_of(self.base)


def settings_of(folder: Path) -> dict[str, Path]:
    """The configuration and tokenizer files of a folder in diffusers layout, by their path in it."""
    return {
        name: folder / name
        for name in _files(folder)
        if name.startswith("tokenizer/") or name.endswith("config.json")
    }


def find_single_file(model_key: str, base_model_key: str | None) -> SingleFile | None:
    """Return the file that a model key is, None if it is none.

    Raises: PriorError if it is no .safetensors file, or if its base is nowhere or incomplete.
    """
    path = Path(model_key).expanduser()
    if not path.is_file():
        return None
    if path.suffix != ".safetensors":
        raise PriorError(
            f"model_key '{model_key}' is a file, but a single file must be .safetensors; {WAYS_OUT}."
        )
    if base_model_key is None:
        raise PriorError(
            f"model_key '{model_key}' is a single file, so base_model_key must say what it was made from: a folder in "
            "diffusers layout or a hub id, of which the tokenizer and the configuration are taken."
        )
    return SingleFile(path, _configuration(base_model_key))


def find_model(model_key: str, *, half: bool) -> ModelFolder:
    """Find the folder that a model key stands for.

    Args:
        model_key: 'toybox', a local folder in diffusers layout, or a hub id.
        half: prefer weights stored in half precision, where both are there.
    Raises: PriorError if it is nowhere, or incomplete.
    """
    folder = _find("model_key", model_key, lambda files: _parts(files, half))
    files = _files(folder)
    chosen = {component: _choose_weights(files, component, half) for component in WEIGHT_STEMS}
    return ModelFolder(folder, {name: weights for name, weights in chosen.items() if weights is not None})


def _configuration(base_model_key: str) -> Path:
    """Find the folder of a model's configuration and tokenizer, with or without its weights."""
    return _find("base_model_key", base_model_key, lambda files: _settings(files, [MODEL_INDEX]))


def _find(name: str, value: str, parts: Callable[[set[str]], Parts]) -> Path:
    """Find the folder on this disk, with all its parts, of a toybox, folder or hub id.

    Args:
        name: the configuration's key that has this `value`.
    """
    if value == TOYBOX:
        return _complete(_toybox_folder(), name, value, parts)
    local = Path(value).expanduser()
    if local.is_dir():
        return _complete(local, name, value, parts)
    repo = current_id(value)
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", repo):
        raise PriorError(f"{name} '{value}' is neither a folder here nor a hub id; {WAYS_OUT}.")
    cached = _cached_folder(repo)
    if cached is not None and not parts(_files(cached)).missing:
        return cached
    return _complete(_download(name, repo, parts), name, repo, parts)


def current_id(model_key: str) -> str:
    """Present home of Stability AI's withdrawn Stable Diffusion 2 repositories; any other key unchanged."""
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
    found = [*folder.glob("*/*"), *folder.glob(MODEL_INDEX)]
    return {path.relative_to(folder).as_posix() for path in found if path.is_file()}


def _choose_weights(files: set[str], component: str, half: bool) -> WeightFile | None:
    """Choose the component's weights among `files`: safetensors before pickles, then the wanted precision."""
    variants = ["fp16", None] if half else [None, "fp16"]
    for extension, stem in WEIGHT_STEMS[component].items():
        for variant in variants:
            path = f"{component}/{stem}{'.' + variant if variant else ''}.{extension}"
            if path in files:
                return WeightFile(path, variant, extension == "safetensors")
    return None


@dataclass(frozen=True)
class Parts:
    """Files that are wanted in a folder, and those of them that are missing."""

    wanted: list[str]
    missing: list[str]


def _settings(files: set[str], more: Sequence[str] = ()) -> Parts:
    """The networks' configuration, the tokenizer and the scheduler."""
    needed = [*(f"{component}/config.json" for component in WEIGHT_STEMS), SCHEDULER_CONFIG, *more]
    missing = [path for path in needed if path not in files]
    if not any(names <= files for names in TOKENIZER_FILES):
        missing.append("tokenizer/tokenizer.json")
    return Parts(needed + sorted(path for path in files if path.startswith("tokenizer/")), missing)


def _parts(files: set[str], half: bool) -> Parts:
    """Files of a whole model in diffusers layout."""
    settings = _settings(files)
    chosen = {component: _choose_weights(files, component, half) for component in WEIGHT_STEMS}
    return Parts(
        settings.wanted + [weights.path for weights in chosen.values() if weights is not None],
        settings.missing
        + [
            f"{component}/{WEIGHT_STEMS[component]['safetensors']}.safetensors"
            for component, weights in chosen.items()
            if weights is None
        ],
    )


def _complete(folder: Path, name: str, value: str, parts: Callable[[set[str]], Parts]) -> Path:
    missing = parts(_files(folder)).missing
    if missing:
        raise PriorError(f"{name} '{value}' lacks {', '.join(missing)} in {folder}; {WAYS_OUT}.")
    return folder


def _cached_folder(repo: str) -> Path | None:
    """The hub's cached snapshot of a repository, complete or not."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, local_files_only=True, allow_patterns=[SCHEDULER_CONFIG]))
    except LocalEntryNotFoundError:
        return None


def _download(name: str, repo: str, parts: Callable[[set[str]], Parts]) -> Path:
    """Fetch the parts, and nothing else, into the hub's cache."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import DryRunError, HTTPError

    looked = f"{name} '{repo}' is neither a folder here nor in the cache folder {constants.HF_HUB_CACHE}"
    if constants.HF_HUB_OFFLINE:
        raise PriorError(f"{looked} and HF_HUB_OFFLINE forbids to download it; {WAYS_OUT}.")
    try:
        files = {info.filename: info for info in snapshot_download(repo, dry_run=True)}
        found = parts(set(files))
        if found.missing:
            raise PriorError(f"{name} '{repo}' lacks {', '.join(found.missing)} on the hub; {WAYS_OUT}.")
        size = sum(files[path].file_size or 0 for path in found.wanted)
        logger.warning("downloading %s (%.1f GB) to %s", repo, size / 1e9, constants.HF_HUB_CACHE)
        return Path(snapshot_download(repo, allow_patterns=found.wanted))
    except (HTTPError, OSError) as error:
        cause = error.__cause__ if isinstance(error, DryRunError) and error.__cause__ else error
        reason = f"{type(cause).__name__}: {cause}".splitlines()[0].rstrip(".")
        raise PriorError(f"{looked} and could not be fetched from the hub ({reason}); {WAYS_OUT}.") from None


def fingerprint(files: Mapping[str, Path]) -> str:
    """SHA-256 over the names and contents of files."""
    found = hashlib.sha256()
    for name in sorted(files):
        found.update(f"{name} {_digest(files[name])}\n".encode())
    return found.hexdigest()


def _digest(path: Path) -> str:
    """SHA-256 of a file; the hub's cache names large ones by it already."""
    name = path.resolve().name
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else digest_of_file(path)
