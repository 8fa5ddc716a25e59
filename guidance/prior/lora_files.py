"""LoRA files: tensors by module, and the strength that each counts with."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite, sqrt
from pathlib import Path
from typing import Any

from torch import Tensor

from guidance.prior import lora_names
from guidance.prior.lora_kinds import Misfit, kind_named, unused_parts
from guidance.prior.model_files import PriorError
from guidance.prior.weight_files import TEXT_WIDTHS, contents_of, header_of, numbers, reading

KEY = "LoRA_path"
PEFT_CONFIG = "adapter_config.json"
MOST_RANK = 1 << 16
FROM_PEFT = "base_model.model."
IN_FOLDERS = tuple(
    f"{stem}{suffix}"
    for stem in ("adapter_model", "pytorch_lora_weights")
    for suffix in (".safetensors", ".bin")
)
"""Names under which PEFT and diffusers write a LoRA into a folder."""
READ = "LoRA, DoRA, LoHa, LoKr, GLoRA, LyCORIS's IA3, full differences and norms"
_STARTS_OF_THEIR_OWN = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin that change the model itself, so that the file is no difference to the model as it is."""


@dataclass(frozen=True)
class Settings:
    """PEFT's settings of a file: what alpha is divided by, and alpha, for all modules and by patterns of names."""

    alpha: float
    rank: int
    alphas: Mapping[str, float] = field(default_factory=dict)
    ranks: Mapping[str, int] = field(default_factory=dict)
    rooted: bool = False

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Settings:
        """Read the settings. PEFT's own defaults stand for what is missing.

        Raises: ValueError, part of a sentence.
        """
        start = str(found.get("init_lora_weights", "")).lower()
        if start.startswith(_STARTS_OF_THEIR_OWN):
            raise ValueError(
                f"init_lora_weights is '{start}', which changes the model too; convert it with PEFT"
            )
        kind = found.get("peft_type") or "LORA"
        if kind not in ("LORA", "LOHA", "LOKR"):
            raise ValueError(f"peft_type is '{kind}', but must be LORA, LOHA or LOKR")
        try:
            settings = cls(
                alpha=float(found.get("lora_alpha" if kind == "LORA" else "alpha", 8)),
                rank=int(found.get("r", 8)),
                alphas={
                    str(name): float(value) for name, value in (found.get("alpha_pattern") or {}).items()
                },
                ranks={str(name): int(value) for name, value in (found.get("rank_pattern") or {}).items()},
                rooted=bool(found.get("use_rslora", False)),
            )
            for pattern in (*settings.alphas, *settings.ranks):
                re.compile(pattern)
        except (TypeError, AttributeError, ValueError, OverflowError, re.error):
            raise ValueError("r, lora_alpha, rank_pattern or alpha_pattern is not what PEFT writes") from None
        if not all(1 <= rank <= MOST_RANK for rank in (settings.rank, *settings.ranks.values())):
            raise ValueError(f"a rank is below 1 or above {MOST_RANK}")
        if not all(map(isfinite, (settings.alpha, *settings.alphas.values()))):
            raise ValueError("an alpha is not finite")
        return settings

    def strength(self, module: str, rank: int | None) -> float:
        """Factor on the change of a module, whose name has dots."""
        alpha = _matching(self.alphas, module, self.alpha)
        rank = rank or _matching(self.ranks, module, self.rank)
        return alpha / (sqrt(rank) if self.rooted else rank)


@dataclass(frozen=True)
class LoraFile:
    """A LoRA as a file has it.

    Attributes:
        modules: file's name of a module -> its parts, float32.
        unread: names of the tensors that are of no kind that is read.
        settings: by network, "" for all, where the file came from PEFT.
        notes: what the file notes about itself.
    """

    path: Path
    modules: dict[str, dict[str, Tensor]]
    unread: list[str]
    settings: dict[str, Settings]
    notes: dict[str, str]

    def strength(self, module: str, name: str, rank: int | None) -> float:
        """Factor on the change of a module of some rank, None where nothing is factorised.

        Args:
            module, name: the file's name of the module, and the model's.
        Raises: Misfit.
        """
        if rank == 0:
            raise Misfit("its rank is 0")
        alpha = self.modules[module].get("alpha")
        if alpha is not None:
            if alpha.numel() != 1:
                raise Misfit(f"its alpha has {alpha.numel()} numbers")
            return float(alpha) / rank if rank else 1.0
        network = lora_names.place_of(module)[0]
        settings = self.settings.get(network) or self.settings.get("")
        return settings.strength(name, rank) if settings else 1.0

    def lacks_settings(self) -> bool:
        """Return whether PEFT wrote the file, whose alphas are in settings that are not there."""
        alphas = any("alpha" in parts for parts in self.modules.values())
        return not alphas and not self.settings and any(name.startswith(FROM_PEFT) for name in self.modules)


def file_in(path: Path) -> Path:
    """Return the file that a path is, or the LoRA in the folder that it is; the path itself if there is none."""
    return next((path / name for name in IN_FOLDERS if (path / name).is_file()), path)


def config_beside(path: Path) -> Path | None:
    """Return the file of PEFT's settings that lies beside a file; None if there is none."""
    config = path.parent / PEFT_CONFIG
    return config if config.is_file() else None


def read_lora(path: Path) -> LoraFile:
    """Read a file in the layout of kohya, LyCORIS, diffusers or PEFT.

    Raises: PriorError, one sentence, if it cannot be read, holds no LoRA, or a number that is not finite.
    """
    with reading(KEY, path):
        contents, notes = contents_of(path), header_of(path)
        modules: dict[str, dict[str, Tensor]] = {}
        names: dict[tuple[str, str], str] = {}
        unread = []
        for name in sorted(contents):
            found = lora_names.split(name)
            if found is None or found in names or not isinstance(contents[name], Tensor):
                unread.append(name)
                continue
            module, part = found
            modules.setdefault(module, {})[part] = numbers(name, contents[name])
            names[found] = name
        for module in list(modules):
            parts = modules[module]
            for part in sorted(unused_parts(parts)):
                unread.append(names[module, part])
                del parts[part]
            if not parts:
                del modules[module]
    if not modules:
        raise PriorError(f"{KEY} '{path}' holds no LoRA that is read: {described(unread)}; read are {READ}.")
    from_peft = path.stem == "adapter_model" or any(name.startswith(FROM_PEFT) for name in modules)
    return LoraFile(path, modules, unread, _settings(path, notes, from_peft), notes)


def described(unread: list[str]) -> str:
    """Count tensors that are of no kind that is read, and name the kinds and the first of them."""
    if not unread:
        return "it has no tensor"
    kinds = {name: kind for name in unread if (kind := lora_names.foreign_kind(name))}
    named = f"of a kind that is not read, {' and '.join(sorted(set(kinds.values())))}" if kinds else "unknown"
    return f"{len(unread)} of its tensors are {named} (such as {next(iter(kinds), unread[0])})"


def kinds_in(file: LoraFile) -> str:
    """Names of a file's kinds."""
    return " and ".join(sorted({name for parts in file.modules.values() if (name := kind_named(parts))}))


def family(file: LoraFile) -> str | None:
    """Name the family of models that a file is of, as far as its names, sizes and notes show."""
    noted = " ".join(
        file.notes.get(name, "") for name in ("ss_base_model_version", "modelspec.architecture")
    ).lower()
    names = " ".join(file.modules)
    if "flux" in noted or re.search(r"double_blocks|single_(transformer_)?blocks", names):
        return "FLUX"
    if "sd3" in noted or "stable-diffusion-3" in noted or "joint_blocks" in names:
        return "Stable Diffusion 3"
    widths = {
        parts["down"].shape[1]
        for name, parts in file.modules.items()
        if re.search(r"attn2[._](processor\.)?to_k$", name) and "down" in parts and parts["down"].ndim > 1
    }
    second = any(lora_names.place_of(name)[0] == "text_encoder_2" for name in file.modules)
    if "xl" in noted or second:
        return "Stable Diffusion XL"
    if version := re.search(r"v([12])", noted):
        return f"Stable Diffusion {version[1]}"
    return TEXT_WIDTHS.get(max(widths, default=0))


def _settings(path: Path, notes: Mapping[str, str], from_peft: bool) -> dict[str, Settings]:
    """PEFT's settings, from beside its file or, as diffusers keeps them, from the header."""
    config = config_beside(path) if from_peft else None
    noted = notes.get("lora_adapter_metadata")
    if config is None and noted is None:
        return {}
    place = config or path
    try:
        found = json.loads(config.read_text() if config else str(noted))
        if not isinstance(found, dict):
            raise ValueError("it is no mapping")
        if config:
            return {"": Settings.of(found)}
        of = {name: _under(found, f"{name}.") for name in ("unet", "text_encoder")}
        return {name: Settings.of(values) for name, values in of.items() if values}
    except (OSError, ValueError, RecursionError) as error:
        raise PriorError(f"{KEY} '{path}' has settings in {place} that cannot be used: {error}.") from None


def _under(found: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}


def _matching(patterns: Mapping[str, Any], module: str, otherwise: Any) -> Any:
    """Value of the first pattern that a module's name ends in, as PEFT finds it."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return otherwise
