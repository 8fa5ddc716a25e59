"""Files of an image prompt: the picture, an IP-Adapter, and the image encoder that the adapter was trained with."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from guidance.prior.libraries import in_short
from guidance.prior.model_files import PriorError, local_path
from guidance.prior.network_files import CONFIG, HUB_ID, complete, fetched

KEY = "image_prompt_model_key"
PUBLISHED = "h94/IP-Adapter"
FILES = {768: "models/ip-adapter_sd15.safetensors", 2048: "sdxl_models/ip-adapter_sdxl.safetensors"}
"""Width of the text that a U-Net reads -> the file that PUBLISHED, or a copy of it, has for such a U-Net."""
ENCODER = "image_encoder"
SHARED = f"models/{ENCODER}"
"""Folder of PUBLISHED with the encoder of adapters that have vit-h in their names."""
WEIGHTS = "model.safetensors"
WAYS_OUT = f"{KEY} takes an adapter's .safetensors file, a folder with one, a hub id such as {PUBLISHED}, or that with a file behind it"


@dataclass(frozen=True)
class ImagePromptFiles:
    """Files of an image prompt.

    Attributes:
        key: the adapter's name in messages.
        picture: the picture.
        weights: the adapter's .safetensors file.
        encoder: folder of the image encoder.
    """

    key: str
    picture: Path
    weights: Path
    encoder: Path

    def files(self) -> Mapping[str, Path]:
        """Return the files that a run depends on, by what they are."""
        encoder = {f"{ENCODER}/{name}": self.encoder / name for name in (CONFIG, WEIGHTS)}
        return {"image_prompt": self.picture, KEY: self.weights, **encoder}


def find_image_prompt(picture: str, key: str | None, width: int) -> ImagePromptFiles:
    """Find an image prompt's files; those on the hub are fetched if need be.

    Args:
        picture: path of the picture.
        key: the value of `image_prompt_model_key`; None: the published adapter.
        width: of the text that the U-Net reads.
    Raises: PriorError, in one sentence, if anything is nowhere, or if no adapter is published for such a U-Net.
    """
    path = Path(picture).expanduser()
    if not path.is_file():
        raise PriorError(f"image_prompt is '{picture}', but there is no such file.")
    if key is None and width not in FILES:
        raise PriorError(
            f"image_prompt is given, but {PUBLISHED} has no adapter for a prior that reads text of width {width}: --{KEY} FILE."
        )
    key = PUBLISHED if key is None else key
    local = local_path(KEY, key)
    if local.is_file() and local.suffix == ".safetensors":
        return ImagePromptFiles(key, path, local, _encoder_of(key, local))
    if local.is_dir():
        weights = _in_folder(key, local, width)
        return ImagePromptFiles(key, path, weights, _encoder_of(key, weights))
    parts = PurePosixPath(key).parts
    repo, inside = "/".join(parts[:2]), "/".join(parts[2:])
    if local.exists() or not re.fullmatch(HUB_ID, repo) or (inside and not inside.endswith(".safetensors")):
        raise PriorError(f"{KEY} '{key}' is no folder here, no .safetensors file and no hub id; {WAYS_OUT}.")
    if not inside and width not in FILES:
        raise PriorError(
            f"{KEY} '{key}' names no file for a prior that reads text of width {width}; {WAYS_OUT}."
        )
    return _of_hub(key, path, repo, PurePosixPath(inside or FILES[width]))


def _in_folder(key: str, folder: Path, width: int) -> Path:
    """Return the adapter of a folder: the published one's name for such a U-Net, or the only file that there is."""
    named = folder / FILES.get(width, "")
    if named.is_file():
        return named
    found = sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return found[0]
    raise PriorError(
        f"{KEY} '{key}' has {len(found)} .safetensors files, but must have the one adapter for this prior; {WAYS_OUT}."
    )


def _encoder_folders(weights: PurePosixPath) -> tuple[PurePosixPath, PurePosixPath]:
    """Return the folders in which the image encoder of an adapter's file may lie, the likelier first."""
    beside, shared = weights.parent / ENCODER, weights.parent.parent / SHARED
    return (shared, beside) if "vit-h" in weights.name else (beside, shared)


def _encoder_of(key: str, weights: Path) -> Path:
    folders = [Path(folder) for folder in _encoder_folders(PurePosixPath(weights))]
    encoder = next((folder for folder in folders if folder.is_dir()), None)
    if encoder is None:
        raise PriorError(
            f"{KEY} '{key}' has no image encoder: neither {folders[0]} nor {folders[1]} is a folder; copy the one that it was "
            "trained with there."
        )
    return complete(KEY, key, encoder, (CONFIG, WEIGHTS), WAYS_OUT)


def _of_hub(key: str, picture: Path, repo: str, weights: PurePosixPath) -> ImagePromptFiles:
    encoder = _encoder_folders(weights)[0]
    wanted = [str(weights), *(str(encoder / name) for name in (CONFIG, WEIGHTS))]
    folder = fetched(KEY, repo, wanted, WAYS_OUT)
    return ImagePromptFiles(key, picture, folder / weights, folder / encoder)


def text_width(settings: Path) -> int:
    """Return the width of the text that a model's U-Net reads, by the folder with its configuration.

    Raises: PriorError, in one sentence, if there is none.
    """
    path = settings / "unet" / CONFIG
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["cross_attention_dim"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise PriorError(
            f"image_prompt needs a U-Net, but {path} names none ({type(error).__name__}: {in_short(error)})."
        ) from None
