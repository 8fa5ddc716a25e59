"""Names of the tensors in LoRA files: the module that each is of, and the part that it is."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from guidance.prior.original_names import original_names

_ADAPTER = r"(\.\w+)?"
"""Name of PEFT's adapter, which some files keep."""
_PARTS = {
    "down": rf"(\.lora_down|[._]lora\.down|\.lora_linear_layer\.down|_lora\.down|\.lora_A{_ADAPTER})\.weight",
    "up": rf"(\.lora_up|[._]lora\.up|\.lora_linear_layer\.up|_lora\.up|\.lora_B{_ADAPTER})\.weight",
    "up_bias": rf"(\.lora_up|\.lora_B{_ADAPTER})\.bias",
    "mid": r"\.lora_mid\.weight",
    "alpha": r"([._]lora)?\.alpha",
    "magnitude": rf"\.lora_magnitude_vector{_ADAPTER}(\.weight)?",
    **{
        name: rf"\.{name}"
        for name in ("dora_scale", "diff", "diff_b", "w_norm", "b_norm", "weight", "on_input")
    },
    **{
        name: rf"\.{name}{_ADAPTER}"
        for name in (
            *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
            *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
        )
    },
    **{name: rf"\.{name}\.weight" for name in ("a1", "a2", "b1", "b2")},
}
_TENSOR = re.compile("(?P<module>.+?)(?:" + "|".join(f"(?P<{name}>{p})" for name, p in _PARTS.items()) + ")")
_FOREIGN = {
    "OFT": r"\.(oft_blocks|oft_diag|oft_r|oft_R|rescale)\b",
    "BOFT": r"\.boft_\w+\b",
    "PEFT's IA3": r"\.ia3_l\b",
    "VeRA": r"\.?vera_\w+\b",
    "LoRA of an embedding": r"\.lora_embedding_[AB]\b",
    "Tucker's GLoRA": r"\.bm\.weight$",
}
"""Kinds that are known by name only."""
_PREFIXES = (
    ("lora_unet_", "unet"),
    ("lora_te_", "text_encoder"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("lycoris_", ""),
    ("unet.", "unet"),
    ("text_encoder.", "text_encoder"),
    ("text_encoder_2.", "text_encoder_2"),
    ("base_model.model.", ""),
    ("model.diffusion_model.", "unet"),
    ("diffusion_model.", "unet"),
    ("text_encoders.clip_l.transformer.", "text_encoder"),
    ("text_encoders.clip_g.transformer.", "text_encoder_2"),
    ("clip_l.transformer.", "text_encoder"),
    ("clip_g.transformer.", "text_encoder_2"),
)
"""Beginnings of names, with the network that they stand for where they do."""


def split(name: str) -> tuple[str, str] | None:
    """Split a tensor's name into its module's and the part that it is; None if it is of no kind that is read."""
    found = _TENSOR.fullmatch(name)
    if found is None:
        return None
    return found["module"], next(part for part in _PARTS if found[part] is not None)


def foreign_kind(name: str) -> str | None:
    """Name the kind of a tensor that is not read; None if it is unknown."""
    return next((kind for kind, pattern in _FOREIGN.items() if re.search(pattern, name)), None)


def place_of(module: str) -> tuple[str, str]:
    """Return the network, "" where the name has none, and the name in it of a file's module, in underscores."""
    network, stripped = "", True
    while stripped:
        stripped = False
        for prefix, stands_for in _PREFIXES:
            if module.startswith(prefix):
                module, network, stripped = module.removeprefix(prefix), stands_for or network, True
    module = module.replace(".processor.", ".")
    # Older attention has one projection for all that came to be a list of two.
    if re.search(r"[._]self_attn[._]to_(q|k|v|out)$", module):
        module = re.sub(r"to_(q|k|v|out)$", r"\1_proj", module)
    module = re.sub(r"(attn\d[._]to_out)$", r"\1_0", module)
    # Text encoders had this part until transformers 5.
    return network, module.replace(".", "_").removeprefix("text_model_")


def modules_of(networks: Mapping[str, nn.Module]) -> dict[tuple[str, str], tuple[str, nn.Module]]:
    """Return all modules that have a weight, with their names, by network and name in underscores.

    Those of a U-Net are there under their original names too.
    """
    found = {}
    for network, whole in networks.items():
        originals = original_names(whole) if network == "unet" else {}
        for name, module in whole.named_modules():
            if isinstance(getattr(module, "weight", None), Tensor):
                for spelling in {name, originals.get(name, name)}:
                    place = spelling.replace(".", "_").removeprefix("text_model_")
                    found[network, place] = (name, module)
    return found
