"""LoRA merged into the weights of a model, whole or not at all unless a part is requested."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from guidance.prior import lora_names
from guidance.prior.lora_files import KEY, PEFT_CONFIG, LoraFile, described, family, kinds_in
from guidance.prior.lora_kinds import Misfit, Parts, changes_of
from guidance.prior.model_files import PriorError
from guidance.prior.weight_files import TEXT_WIDTHS

logger = logging.getLogger(__name__)


@dataclass
class _Fit:
    """Modules of a file, sorted by whether this model has them.

    Attributes:
        found: file's name -> the model's name and its module.
        lacking: names of those that the model lacks.
        other_sizes: name -> why it does not fit.
    """

    found: dict[str, tuple[str, nn.Module]] = field(default_factory=dict)
    lacking: list[str] = field(default_factory=list)
    other_sizes: dict[str, str] = field(default_factory=dict)


def merge_lora(networks: Mapping[str, nn.Module], file: LoraFile, scale: float, *, part: bool) -> None:
    """Add `scale` times a file's changes to the weights of the networks, for good.

    Args:
        networks: "unet" and "text_encoder".
        part: accept a file of which only some modules are this model's, with a warning.
    Raises: PriorError, one sentence; before any weight is changed where it is of what does not fit.
    """
    fit = _fit(networks, file)
    _report(networks, file, fit, part)
    changed = False
    for module, (name, target) in fit.found.items():
        weights = {key: weight.detach().float() for key, weight in _weights(target).items()}
        parts = {key: values.to(target.weight.device) for key, values in file.modules[module].items()}  # type: ignore[arg-type]
        changes = changes_of(parts, weights, partial(file.strength, module, name))
        for key, change in changes.items():
            merged = (weights[key] + scale * change).to(getattr(target, key).dtype)
            if not torch.isfinite(merged).all():
                raise PriorError(
                    f"{KEY} '{file.path}' times LoRA_scale {scale:g} makes {name}.{key} leave the range of "
                    f"{str(merged.dtype).removeprefix('torch.')}: LoRA_scale must be smaller."
                )
            changed = changed or bool(change.any())
            getattr(target, key).data.copy_(merged)
    if not changed:
        raise PriorError(f"{KEY} '{file.path}' changes no weight: all of its changes are 0.")
    logger.info("%s changes %d modules (%s).", file.path, len(fit.found), kinds_in(file))


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {
        name: weight
        for name in ("weight", "bias")
        if isinstance(weight := getattr(module, name, None), Tensor)
    }


def _fit(networks: Mapping[str, nn.Module], file: LoraFile) -> _Fit:
    """Sort a file's modules; sizes are compared without computing anything."""
    fit, modules = _Fit(), lora_names.modules_of(networks)
    for module, parts in file.modules.items():
        network, place = lora_names.place_of(module)
        keys = [(network, place)] if network else [(name, place) for name in networks]
        found = next((modules[key] for key in keys if key in modules), None)
        if found is None:
            fit.lacking.append(module)
            continue
        shapes: Parts = {
            name: values if name == "on_input" else values.to("meta") for name, values in parts.items()
        }
        weights = {
            name: torch.empty_like(weight, device="meta", dtype=torch.float32)
            for name, weight in _weights(found[1]).items()
        }
        try:
            changes_of(shapes, weights, partial(file.strength, module, found[0]))
            fit.found[module] = found
        except Misfit as error:
            fit.other_sizes[module] = str(error)
    return fit


def _report(networks: Mapping[str, nn.Module], file: LoraFile, fit: _Fit, part: bool) -> None:
    """Raise or warn of what does not fit.

    Raises: PriorError.
    """
    if file.lacks_settings():
        logger.warning("%s has no %s beside it: alpha is taken to be the rank.", file.path, PEFT_CONFIG)
    total = len(file.modules)
    reasons = []
    if fit.lacking:
        reasons.append(
            f"this model lacks {len(fit.lacking)} of its {total} modules (such as {fit.lacking[0]})"
        )
    if fit.other_sizes:
        first, why = next(iter(fit.other_sizes.items()))
        reasons.append(f"{len(fit.other_sizes)} of its {total} modules have another size ({first}: {why})")
    if file.unread:
        reasons.append(described(file.unread))
    if not reasons:
        return
    reasons += [reason for reason in (_depths(networks, file), _other_family(networks, file)) if reason]
    why = "; ".join(reasons)
    if not fit.found:
        raise PriorError(f"{KEY} '{file.path}' is of another model: {why}.")
    if not part:
        raise PriorError(
            f"{KEY} '{file.path}' fits this model only in part: {why}; --LoRA_partial true applies the other "
            f"{len(fit.found)} modules."
        )
    logger.warning("%s '%s' is applied only in part, to %d modules: %s.", KEY, file.path, len(fit.found), why)


def _depths(networks: Mapping[str, nn.Module], file: LoraFile) -> str | None:
    """Compare the depths of the text encoders, if the file's is deeper."""
    wanted = max(
        (
            1 + int(layer[1])
            for module in file.modules
            if lora_names.place_of(module)[0] != "text_encoder_2"
            and (layer := re.match(r"encoder_layers_(\d+)_", lora_names.place_of(module)[1]))
        ),
        default=0,
    )
    there = int(networks["text_encoder"].config.num_hidden_layers)  # type: ignore[union-attr,arg-type]
    if wanted <= there:
        return None
    return f"it is of a text encoder of {wanted} layers, and this model's has {there}"


def _other_family(networks: Mapping[str, nn.Module], file: LoraFile) -> str | None:
    """Name the family of models that a file is of, if this model's texts have other sizes."""
    found = family(file)
    ours = TEXT_WIDTHS.get(networks["unet"].config.cross_attention_dim)  # type: ignore[union-attr,arg-type]
    return f"it is of {found}" if found not in (None, ours) else None
