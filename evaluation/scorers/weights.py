"""Find a scorer's weights: here, in the hub's cache, or on the hub."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn

from evaluation.scorers.contract import ScorerError


def find_file(option: str, where: str, name: str) -> Path:
    """The file `name` at the option's value: a file, a folder that has it, a hub id, or an address (https).

    Downloads what is in no cache, unless HF_HUB_OFFLINE forbids it. Raises ScorerError, one sentence.
    """
    local = Path(where).expanduser()
    if local.is_file():
        return local
    if local.is_dir():
        if not (local / name).is_file():
            raise ScorerError(f"{option} is the folder {where!r}, but it has no file {name}.")
        return local / name
    return _from_address(option, where, name) if "://" in where else _from_hub(option, where, name)


def _from_address(option: str, where: str, name: str) -> Path:
    from huggingface_hub import constants

    cached = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not cached.exists():
        if constants.HF_HUB_OFFLINE:
            raise unavailable(
                option, where, f"it is not at {cached} and HF_HUB_OFFLINE forbids to download it"
            )
        cached.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(where, str(cached))
        except OSError as error:
            raise unavailable(option, where, reason(error)) from None
    return cached


def _from_hub(option: str, where: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError, HTTPError

    try:
        return Path(hf_hub_download(where, name))
    except (HTTPError, OSError, HFValidationError) as error:
        raise unavailable(option, where, reason(error)) from None


def unavailable(option: str, where: str, why: str) -> ScorerError:
    """The sentence for weights that are nowhere to be had."""
    return ScorerError(f"{option} is {where!r}, which cannot be loaded ({why}); give a local path.")


def reason(error: BaseException) -> str:
    """An error's first line, as a part of a sentence."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def fingerprint(network: nn.Module) -> str:
    """Fingerprint of the names of all weights and the first few numbers of each: another network, or other
    training, has another.
    """
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.flatten()[:64].double().numpy(force=True).tobytes())
    return digest.hexdigest()[:12]
