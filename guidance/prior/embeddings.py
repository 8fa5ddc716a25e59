"""Conditions of texts, kept on the disk: text encoders larger than the network are loaded once for a prompt."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from guidance.condition import Condition
from utils.device import HOST
from utils.files import write_bytes

logger = logging.getLogger(__name__)


def default_folder() -> Path:
    """Return the folder where embeddings are kept unless `embeddings` names one, in the user's cache."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    return base / "segmentdreamer-open" / "embeddings"


class Embeddings:
    """The conditions of texts of one model, made once.

    Args:
        folder: where they are kept, in a folder of the model's fingerprint; None: in the user's cache.
        fingerprint: of the model that they are for.
        marks: what else they depend on: how they are made, and the text encoders, blank where these are not here.
        make: embeds texts, in one batch.
        device: for the conditions.
    """

    def __init__(
        self,
        folder: str | None,
        fingerprint: str,
        marks: tuple[str, str],
        make: Callable[[Sequence[str]], Condition],
        device: torch.device,
    ) -> None:
        base = Path(folder).expanduser() if folder is not None else default_folder()
        self.folder, self._marks, self._make, self._device = base / fingerprint[:16], marks, make, device
        self._table: dict[str, Condition] = {}

    def __call__(self, texts: Sequence[str]) -> Condition:
        """Return the conditions of P texts on the device, those of the same length where their lengths differ.

        Raises: whatever making them raises.
        """
        for text in texts:
            if text not in self._table and (found := self._kept(text)) is not None:
                self._table[text] = found
        if missing := [text for text in dict.fromkeys(texts) if text not in self._table]:
            made = self._make(missing)
            for row, text in enumerate(missing):
                self._table[text] = _trimmed(_on(made[row], HOST))
                self._keep(text, self._table[text])
        if not texts:
            return Condition({})
        return _on(joined([self._table[text] for text in texts]), self._device)

    def largest(self) -> Condition:
        """Return the conditions of all texts so far, on the host."""
        return joined([*self._table.values()])

    def _path(self, text: str) -> Path:
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"

    def _kept(self, text: str) -> Condition | None:
        path = self._path(text)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                how, encoders = about.get("how"), about.get("encoders")
                if about.get("text") != text or how != self._marks[0]:
                    return None
                if not self._marks[1]:
                    logger.info("Text encoders are not all here: '%s' is as %s has it.", text, path)
                elif encoders != self._marks[1]:
                    logger.warning("%s is of other text encoders: '%s' is embedded anew.", path, text)
                    return None
                return Condition({name: file.get_tensor(name) for name in json.loads(about["parts"])})
        except (OSError, SafetensorError, KeyError, ValueError):
            logger.warning("%s cannot be read: '%s' is embedded anew.", path, text)
            return None

    def _keep(self, text: str, condition: Condition) -> None:
        about = {
            "text": text,
            "how": self._marks[0],
            "encoders": self._marks[1],
            "parts": json.dumps([*condition.parts]),
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            parts = {name: part.contiguous() for name, part in condition.parts.items()}
            write_bytes(self._path(text), save(parts, about))
        except OSError as error:
            logger.warning("The embeddings of '%s' are not kept: %s.", text, error)


def joined(conditions: Sequence[Condition]) -> Condition:
    """Join conditions to one batch; sequences of different lengths are filled up with zeros."""
    if not conditions:
        return Condition({})
    return Condition(
        {name: _padded([each.parts[name] for each in conditions]) for name in conditions[0].parts}
    )


def _padded(parts: Sequence[Tensor]) -> Tensor:
    if parts[0].dim() < 2:
        return torch.cat([*parts])
    longest = max(part.shape[1] for part in parts)
    return torch.cat(
        [F.pad(part, (*[0] * (2 * (part.dim() - 2)), 0, longest - part.shape[1])) for part in parts]
    )


def _trimmed(condition: Condition) -> Condition:
    """Cut a text of one row to its length, if it has one."""
    parts: Mapping[str, Tensor] = condition.parts
    if "length" not in parts:
        return condition
    return Condition({**parts, "text": parts["text"][:, : int(parts["length"])]})


def _on(condition: Condition, device: torch.device) -> Condition:
    """Bring a condition to a device, but for lengths, which stay on the host."""
    return Condition(
        {name: part.to(HOST if name == "length" else device) for name, part in condition.parts.items()}
    )
