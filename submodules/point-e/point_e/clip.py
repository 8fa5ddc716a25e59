"""Embeddings of a text or an image by CLIP, through transformers."""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ftfy
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from point_e.errors import PointEError, reason_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

VIT_L_14 = "openai/clip-vit-large-patch14"
"""The CLIP that the published models were trained with, on the hub."""
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Mean and standard deviation of the colours of the images that CLIP was trained on."""
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
TOKENIZER = ("tokenizer.json", "vocab.json")
PATTERNS = [
    "config.json", "model*.safetensors", "model.safetensors.index.json",
    "tokenizer*.json", "vocab.json", "merges.txt", "special_tokens_map.json",
]  # fmt: skip
"""Files that are downloaded: weights as safetensors only."""
WAYS_OUT = (
    "give the path of a folder with CLIP in transformers' layout as clip, put it into the hub's cache, "
    "or allow the download"
)


def find_clip(name: str, *, text: bool, offline: bool) -> Path:
    """The folder of a CLIP in transformers' layout that `name` stands for: a path or an id on the hub.

    text: a tokenizer is needed too. The hub gets no request for what its cache on this disk has. Raises
    PointEError.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if missing := _missing(folder, text):
            raise PointEError(f"CLIP {name!r} lacks {missing}; it must be a folder in transformers' layout.")
        return folder
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name):
        raise PointEError(f"CLIP {name!r} is neither a folder here nor an id on the hub; {WAYS_OUT}.")
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=PATTERNS, local_files_only=True))
        if not _missing(folder, text):
            return folder
    except LocalEntryNotFoundError:
        pass
    looked = f"CLIP {name!r} is neither a folder here nor whole in {constants.HF_HUB_CACHE}"
    if offline:
        raise PointEError(f"{looked}, and this is offline; {WAYS_OUT}.")
    try:
        folder = Path(snapshot_download(name, allow_patterns=PATTERNS))
    except (HTTPError, OSError) as error:
        raise PointEError(
            f"{looked}, and the hub does not give it ({reason_of(error)}); {WAYS_OUT}."
        ) from error
    if missing := _missing(folder, text):
        raise PointEError(f"{looked}, and the hub does not give {missing}; {WAYS_OUT}.")
    return folder


def _missing(folder: Path, text: bool) -> str:
    """List what a folder of CLIP lacks, in words; nothing if it is complete."""
    groups = [("config.json",), WEIGHTS, *([TOKENIZER] if text else [])]
    lacking = [group[0] for group in groups if not any((folder / name).is_file() for name in group)]
    return " and ".join(lacking)


def cleaned(text: str) -> str:
    """Text as CLIP's own tokenizer takes it: mojibake, curly quotes and ligatures mended, HTML's entities resolved (twice)."""
    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()


@torch.no_grad()
def text_vector(folder: Path, text: str, device: torch.device) -> Tensor:
    """Vector [1, D] of unit length, float32, of the text as `cleaned`. What goes beyond CLIP's length (77 tokens in ViT-L/14)
    is cut off."""
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

    with _one_sentence(folder):
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        tower = _tower(CLIPTextModelWithProjection, folder, device)
        length = tower.config.max_position_embeddings
        tokens = tokenizer(cleaned(text), verbose=False).input_ids
        if len(tokens) > length:
            logger.warning("the prompt is cut at %d tokens: %s", length, text)
            tokens = [*tokens[: length - 1], tokens[-1]]
        return F.normalize(tower(torch.tensor([tokens], device=device)).text_embeds, dim=-1)


@torch.no_grad()
def image_vector_and_grid(folder: Path, image: Image.Image, device: torch.device) -> tuple[Tensor, Tensor]:
    """Vector [1, D] of unit length, and the image's tokens [1, L, W] as the last layer leaves them; float32."""
    from transformers import CLIPVisionModelWithProjection

    with _one_sentence(folder):
        tower = _tower(CLIPVisionModelWithProjection, folder, device)
        output = tower(preprocess(image, tower.config.image_size).to(device))
        # The first token stands for the whole image.
        return F.normalize(output.image_embeds, dim=-1), output.last_hidden_state[:, 1:]


def preprocess(image: Image.Image, size: int) -> Tensor:
    """An image as CLIP is shown it [1, 3, size, size]: over white, its middle square, normalised.

    It follows CLIP's own code, with Pillow alone: transformers' processor resizes a little differently where
    torchvision is installed.
    """
    rgba = image.convert("RGBA")
    opaque = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    shorter = min(opaque.size)
    width, height = (size * edge // shorter for edge in opaque.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = opaque.resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(resized.crop((left, top, left + size, top + size)), dtype=np.float32)
    normalised = (torch.from_numpy(pixels) / 255.0 - torch.tensor(MEAN)) / torch.tensor(STD)
    return normalised.permute(2, 0, 1)[None]


def _tower(architecture: Any, folder: Path, device: torch.device) -> PreTrainedModel:
    """Tower of CLIP with its projection, one of two, complete: a weight that is not there must not stay random."""
    tower, info = architecture.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
    )
    if missing := sorted(info["missing_keys"]):
        raise PointEError(f"CLIP in {str(folder)!r} lacks {len(missing)} of its weights ({missing[0]}, ...).")
    return tower.to(device).eval()


@contextmanager
def _one_sentence(folder: Path) -> Iterator[None]:
    """Turn what transformers raises into PointEError; no bar for every file, no report of the tower that is
    not loaded.
    """
    from transformers.utils import logging as transformers_logging

    shown, verbosity = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    except PointEError:
        raise
    except Exception as error:  # What it raises for damaged files has no common class.
        raise PointEError(f"CLIP in {str(folder)!r} cannot be used ({reason_of(error)}).") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
        if shown:
            transformers_logging.enable_progress_bar()
