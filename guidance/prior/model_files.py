"""Files of a diffusers folder on this disk, found by a model key and downloaded if need be."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from config.guidance_params import TOYBOX, TOYBOX_DEPTH, TOYBOX_FLOW, TOYBOX_IMAGE, TOYBOX_MULTIVIEW
from guidance.prior.family import MODEL_INDEX, SCHEDULER_CONFIG, misfit
from guidance.prior.hub_ids import homes_of
from utils.files import digest_of_file

logger = logging.getLogger(__name__)

SMALL_ENCODER = "small_encoder"
"""Folder of the small encoder that comes with a model."""
TOY_FOLDERS = {
    TOYBOX: "",
    TOYBOX_FLOW: "flow",
    TOYBOX_MULTIVIEW: "",
    TOYBOX_DEPTH: "controlnet_depth",
    TOYBOX_IMAGE: "image_prompt",
}
"""Keys of what comes with the project -> its folder among toybox's weights."""
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


class PriorError(Exception):
    """Failure to load a prior; the message is one sentence for the user."""


@dataclass(frozen=True)
class WeightFile:
    """Weights of a component.

    Attributes:
        path: of the file, or of the index of its shards, inside the folder.
        variant: diffusers' name for it.
        safetensors: the format; False for pickles.
    """

    path: str
    variant: str | None
    safetensors: bool

    @property
    def sharded(self) -> bool:
        return self.path.endswith(".json")


@dataclass(frozen=True)
class ModelFolder:
    """A complete diffusers folder on this disk and the weights chosen in it, by component."""

    path: Path
    weights: dict[str, WeightFile]

    def files(self) -> dict[str, Path]:
        """Return all files that a run depends on, by what they are."""
        paths = {path: self.path / path for name in self.weights for path in self.weight_files(name)}
        indexes = {each.path: self.path / each.path for each in self.weights.values()}
        return paths | indexes | settings_of(self.path)

    def weight_files(self, component: str) -> list[str]:
        """Return the paths, inside the folder, of the files that hold a component's weights."""
        return _weight_files(self.path, self.weights[component])


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
        if name.startswith("tokenizer/")
        or (name.endswith("config.json") and not name.startswith(SMALL_ENCODER))
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
    return SingleFile(path, find_base(model_key, base_model_key))


def find_base(model_key: str, base_model_key: str | None) -> Path:
    """Find the folder of the model that the single file of `model_key` was made from.

    Raises: PriorError if it is not named, nowhere or incomplete.
    """
    if base_model_key is None:
        raise PriorError(
            f"model_key '{model_key}' is a single file, so base_model_key must say what it was made from: a folder in "
            "diffusers layout or a hub id, of which the tokenizer and the configuration are taken."
        )
    return _find("base_model_key", base_model_key, None)


def find_model(model_key: str, *, half: bool) -> ModelFolder:
    """Find the folder that a model key stands for.

    Args:
        model_key: 'toybox', a local folder in diffusers layout, or a hub id.
        half: prefer weights stored in half precision, where both are there.
    Raises: PriorError if it is nowhere, or incomplete.
    """
    folder = _find("model_key", model_key, half)
    chosen = _choose_all(_files(folder), half)
    return ModelFolder(folder, {name: weights for name, weights in chosen.items() if weights is not None})


def _find(name: str, value: str, half: bool | None) -> Path:
    """Find the folder on this disk, with all its parts, of a toybox, folder or hub id.

    Args:
        name: the configuration's key that has this `value`.
        half: prefer weights in half precision; None: no weights are needed, but the list of parts is.
    """
    local = local_path(name, value)
    if local.is_dir():
        return _complete(local, name, value, half)
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", value):
        raise PriorError(f"{name} '{value}' is neither a folder here nor a hub id; {WAYS_OUT}.")
    homes = homes_of(value)
    for home in homes:
        cached = _cached_folder(home)
        if cached is not None and not _missing(cached, name, home, half):
            if home != homes[-1]:
                logger.warning(
                    "%s '%s' is no longer on the hub: its copy in the cache is used, %s.", name, home, cached
                )
            elif home != value:
                _report_move(name, value, home)
            return cached
    if homes[-1] != value:
        _report_move(name, value, homes[-1])
    return _download(name, homes[-1], half)


def _report_move(name: str, value: str, home: str) -> None:
    logger.warning("%s '%s' is not on the hub: the same weights are taken from '%s'.", name, value, home)


def _missing(folder: Path, name: str, value: str, half: bool | None) -> list[str]:
    """List the parts that a folder lacks. Raises: PriorError if what is there cannot guide."""
    files = _files(folder)
    _check_fit(folder, files, name, value)
    return _settings(files, half).missing + _weights(folder, files, name, value, half).missing


def _check_fit(folder: Path, files: Set[str], name: str, value: str) -> None:
    if why := misfit(folder, files):
        raise PriorError(f"{name} '{value}' {why}.")


def local_path(name: str, value: str) -> Path:
    """Return the path on this disk that the value of a configuration's key `name` may be: a part of toybox, or a path.

    Raises: PriorError if toybox is meant, and its package is not installed.
    """
    if value not in TOY_FOLDERS:
        return Path(value).expanduser()
    try:
        import toybox
    except ModuleNotFoundError:
        raise PriorError(
            f"{name} '{value}' needs the toybox package, which is not installed here; run pip install submodules/toybox."
        ) from None
    return Path(toybox.weights_path()) / TOY_FOLDERS[value]


def _files(folder: Path) -> set[str]:
    found = [*folder.glob("*/*"), *folder.glob(MODEL_INDEX)]
    return {path.relative_to(folder).as_posix() for path in found if path.is_file()}


def _choose_all(files: Set[str], half: bool) -> dict[str, WeightFile | None]:
    return {component: _choose_weights(files, component, half) for component in WEIGHT_STEMS}


def _choose_weights(files: Set[str], component: str, half: bool) -> WeightFile | None:
    """Choose the component's weights among `files`: safetensors before pickles, then the wanted precision.

    Of a file and an index of shards, that which its library would read.
    """
    variants = ["fp16", None] if half else [None, "fp16"]
    for extension, stem in WEIGHT_STEMS[component].items():
        for variant in variants:
            mark = f".{variant}" if variant else ""
            names = [f"{stem}{mark}.{extension}", f"{stem}.{extension}.index{mark}.json"]
            if component != "text_encoder":
                names.reverse()
            for name in names:
                if f"{component}/{name}" in files:
                    return WeightFile(f"{component}/{name}", variant, extension == "safetensors")
    return None


def _weight_files(folder: Path, weights: WeightFile) -> list[str]:
    """Return the paths of a component's files of weights: one, or the shards that the index names.

    Raises: ValueError, the end of a sentence, if the index names none.
    """
    if not weights.sharded:
        return [weights.path]
    try:
        names = set(json.loads((folder / weights.path).read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        names = set()
    if not names or not all(isinstance(name, str) and re.fullmatch(r"[\w-][\w.-]*", name) for name in names):
        raise ValueError(f"has a {weights.path} that is no list of shards (a weight_map with file names)")
    component = weights.path.split("/")[0]
    return sorted(f"{component}/{name}" for name in names)


@dataclass(frozen=True)
class Parts:
    """Files that are wanted in a folder, and those of them that are missing."""

    wanted: list[str]
    missing: list[str]


def _settings(files: Set[str], half: bool | None) -> Parts:
    """The small files: configuration of the networks, tokenizer, scheduler, and the index of shards."""
    needed = [*(f"{component}/config.json" for component in WEIGHT_STEMS), SCHEDULER_CONFIG]
    if half is None:
        needed.append(MODEL_INDEX)
    missing = [path for path in needed if path not in files]
    if not any(names <= files for names in TOKENIZER_FILES):
        missing.append("tokenizer/tokenizer.json")
    chosen = [] if half is None else _choose_all(files, half).values()
    more = {path for path in files if path.startswith("tokenizer/") or path == MODEL_INDEX}
    more |= {weights.path for weights in chosen if weights is not None and weights.sharded}
    return Parts(sorted((set(needed) & files) | more), missing)


def _weights(folder: Path, files: Set[str], name: str, value: str, half: bool | None) -> Parts:
    """The files of weights, of a model whose small files are in `folder`. Raises: PriorError for a broken index."""
    wanted: list[str] = []
    missing: list[str] = []
    for component, weights in ({} if half is None else _choose_all(files, half)).items():
        if weights is None:
            missing.append(f"{component}/{WEIGHT_STEMS[component]['safetensors']}.safetensors")
            continue
        try:
            wanted += _weight_files(folder, weights)
        except ValueError as error:
            raise PriorError(f"{name} '{value}' {error}; {WAYS_OUT}.") from None
    return Parts(wanted, missing + [path for path in wanted if path not in files])


def _complete(folder: Path, name: str, value: str, half: bool | None) -> Path:
    if missing := _missing(folder, name, value, half):
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


def _download(name: str, repo: str, half: bool | None) -> Path:
    """Fetch what is needed, and nothing else, into the hub's cache: the small files first, which decide."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import DryRunError, HTTPError

    looked = f"{name} '{repo}' is neither a folder here nor in the cache folder {constants.HF_HUB_CACHE}"
    if (cached := _cached_folder(repo)) is not None:
        lacks = ", ".join(_missing(cached, name, repo, half))
        looked = f"{name} '{repo}' lacks {lacks} in the cache folder {cached}"
    if constants.HF_HUB_OFFLINE:
        raise PriorError(f"{looked} and HF_HUB_OFFLINE forbids to download it; {WAYS_OUT}.")
    try:
        sizes = {info.filename: info.file_size or 0 for info in snapshot_download(repo, dry_run=True)}
        files, settings = set(sizes), _settings(set(sizes), half)
        folder = Path(snapshot_download(repo, allow_patterns=settings.wanted)) if settings.wanted else Path()
        _check_fit(folder, files, name, repo)
        weights = _weights(folder, files, name, repo, half)
        if missing := settings.missing + weights.missing:
            raise PriorError(f"{name} '{repo}' lacks {', '.join(missing)} on the hub; {WAYS_OUT}.")
        if weights.wanted:
            size = sum(sizes[path] for path in weights.wanted)
            logger.warning("downloading %s (%.1f GB) to %s", repo, size / 1e9, constants.HF_HUB_CACHE)
            folder = Path(snapshot_download(repo, allow_patterns=weights.wanted))
        return folder
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
