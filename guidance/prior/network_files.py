"""One network of diffusers beside a model: found as a folder on this disk, a hub id or a .safetensors file, and read."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guidance.prior.libraries import in_short, quiet_libraries
from guidance.prior.model_files import PriorError, local_path

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
HUB_ID = r"[\w-][\w.-]*/[\w-][\w.-]*"
"""Pattern of a repository's name on the hub."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NetworkFiles:
    """Files of a network: a folder in diffusers layout, or a .safetensors file. key: its name in messages."""

    key: str
    path: Path

    def files(self, what: str) -> dict[str, Path]:
        """Return the files that a run depends on, by what they are; what: the network's name among these."""
        if self.path.is_file():
            return {what: self.path}
        return {f"{what}/{name}": self.path / name for name in (CONFIG, WEIGHTS)}


def find_network(name: str, key: str, ways_out: str) -> NetworkFiles:
    """Find the network that a configuration's key `name` has the value `key` for; what is on the hub is fetched if need be.

    ways_out: end of the sentence that tells of a failure.

    Raises: PriorError, in one sentence, if it is nowhere or incomplete.
    """
    local = local_path(name, key)
    if local.is_dir():
        return NetworkFiles(key, complete(name, key, local, (CONFIG, WEIGHTS), ways_out))
    if local.is_file() and local.suffix == ".safetensors":
        return NetworkFiles(key, local)
    if local.is_file() or not re.fullmatch(HUB_ID, key):
        raise PriorError(f"{name} '{key}' is no folder here, no .safetensors file and no hub id; {ways_out}.")
    return NetworkFiles(key, fetched(name, key, (CONFIG, WEIGHTS), ways_out))


def complete(name: str, key: str, folder: Path, wanted: Sequence[str], ways_out: str) -> Path:
    """Return a folder that has all `wanted` files, for a configuration's key `name` of the value `key`.

    Raises: PriorError, in one sentence that ends in `ways_out`, if it lacks any.
    """
    missing = [file for file in wanted if not (folder / file).is_file()]
    if missing:
        raise PriorError(f"{name} '{key}' lacks {', '.join(missing)} in {folder}; {ways_out}.")
    return folder


def fetched(name: str, repo: str, wanted: Sequence[str], ways_out: str) -> Path:
    """Return a repository's folder in the hub's cache, with all `wanted` files, which are fetched if need be.

    name, ways_out: as for `find_network`.

    Raises: PriorError, in one sentence.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

    looked = f"{name} '{repo}' is neither a folder here nor in the cache folder {constants.HF_HUB_CACHE}"
    try:
        cached = Path(snapshot_download(repo, local_files_only=True, allow_patterns=[*wanted]))
        if all((cached / file).is_file() for file in wanted):
            return cached
    except LocalEntryNotFoundError:
        pass
    if constants.HF_HUB_OFFLINE:
        raise PriorError(f"{looked} and HF_HUB_OFFLINE forbids to download it; {ways_out}.")
    try:
        logger.warning("downloading %s to %s", repo, constants.HF_HUB_CACHE)
        folder = Path(snapshot_download(repo, allow_patterns=[*wanted]))
        return complete(name, repo, folder, wanted, ways_out)
    except (HTTPError, OSError) as error:
        raise PriorError(
            f"{looked} and could not be fetched from the hub ({type(error).__name__}: {in_short(error)}); {ways_out}."
        ) from None


def read_network(kind: Any, folder: Path, needed: str = "") -> Any:
    """Read a network of diffusers' or transformers' class `kind` from a folder; it must have all weights whose names begin with `needed`.

    Raises: ValueError, part of a sentence, if it lacks any, and whatever a foreign file makes diffusers raise.
    """
    with quiet_libraries():
        network, info = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    if missing := sorted(name for name in info["missing_keys"] if name.startswith(needed)):
        whose = f"the {needed.rstrip('.')}'s" if needed else "its"
        raise ValueError(f"it lacks {len(missing)} of {whose} weights, such as {missing[0]}")
    return network


def check_finite(named: str, network: Any) -> None:
    """Check that all weights of a network are finite. Raises: PriorError, which begins with `named`."""
    for weight, values in network.named_parameters():
        if not bool(values.isfinite().all()):
            raise PriorError(
                f"{named} has weights that are not finite, {weight} the first: fetch the file again."
            )
