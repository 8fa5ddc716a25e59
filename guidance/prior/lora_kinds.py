"""Kinds of low-rank and other changes of a weight: LoRA, DoRA, LoHa, LoKr, GLoRA, (IA)³, differences, norms.

Each is a function of the parts that a file has for one module. Conventions are those of kohya, LyCORIS and PEFT:
Delta W is scaled by alpha / rank, and a Kronecker product of two whole matrices is not scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import copysign, sqrt

import torch
from torch import Tensor

Parts = Mapping[str, Tensor]
Strength = Callable[[int | None], float]
"""Factor on a change of some rank, None where nothing is factorised."""


class Misfit(ValueError):
    """Failure of parts to fit each other or their module; the message is part of a sentence."""


def _lora(parts: Parts, weight: Tensor, strength: Strength) -> Tensor:
    """B A. Either factor takes the root of the strength, so that large ones and small ones meet."""
    down, up = parts["down"], parts["up"]
    factor = strength(down.shape[0])
    root = sqrt(abs(factor))
    down, up = root * down, copysign(root, factor) * up
    if "mid" in parts:
        return _tucker(parts["mid"], up.flatten(1).T, down.flatten(1))
    return (up.flatten(1) @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])


def _loha(parts: Parts, weight: Tensor, strength: Strength) -> Tensor:
    """(A1 B1) ∘ (A2 B2)."""
    first, second = (_factorised(parts, f"hada_w{index}", f"hada_t{index}", weight) for index in (1, 2))
    return strength(parts["hada_w1_b"].shape[0]) * first * second


def _lokr(parts: Parts, weight: Tensor, strength: Strength) -> Tensor:
    """W1 ⊗ W2, each whole or factorised."""
    outer = parts["lokr_w1"] if "lokr_w1" in parts else parts["lokr_w1_a"] @ parts["lokr_w1_b"]
    inner = parts["lokr_w2"] if "lokr_w2" in parts else _factorised(parts, "lokr_w2", "lokr_t2", None)
    if inner.ndim == 2 and weight.ndim > 2 and inner.shape[1] % weight[0, 0].numel() == 0:
        inner = inner.reshape(inner.shape[0], -1, *weight.shape[2:])
    rank = next((parts[name].shape[0] for name in ("lokr_w2_b", "lokr_w1_b") if name in parts), None)
    return strength(rank) * torch.kron(
        outer.reshape(*outer.shape, *[1] * (inner.ndim - 2)), inner.contiguous()
    )


def _glora(parts: Parts, weight: Tensor, strength: Strength) -> Tensor:
    """W A + B of two products, which LyCORIS wrote the other way about before 2.0."""
    a1, a2, b1, b2 = (parts[name].flatten(1) for name in ("a1", "a2", "b1", "b2"))
    older = a1.shape[0] == a2.shape[1] == b1.shape[0] == b2.shape[1] and not (
        a1.shape[1] == a2.shape[0] == b1.shape[1] == b2.shape[0] and weight.shape[0] != weight.shape[1]
    )
    if older:
        a1, a2, b1, b2 = a2, a1, b2, b1
    along = torch.einsum("oi...,ir,rj->oj...", weight, a1, a2)
    return strength(a1.shape[1]) * (along + (b1 @ b2).reshape(weight.shape))


def _ia3(parts: Parts, weight: Tensor, strength: Strength) -> Tensor:
    """W scaled by column, where it is trained on the input, or by row."""
    axis = 1 if bool(parts["on_input"].flatten()[0]) else 0
    return _along(parts["weight"], weight, axis) * weight


def _difference(parts: Parts, weight: Tensor, strength: Strength) -> Tensor:
    return parts["diff"]


def _norm(parts: Parts, weight: Tensor, strength: Strength) -> Tensor:
    return parts["w_norm"]


@dataclass(frozen=True)
class Kind:
    """A kind of change.

    Attributes:
        needs, may: names of its parts.
        change: (parts, weight float32, strength) -> Delta W in the weight's shape, or flattened from it.
    """

    name: str
    needs: frozenset[str]
    may: frozenset[str]
    change: Callable[[Parts, Tensor, Strength], Tensor]


_DECOMPOSED = {"alpha", "magnitude", "dora_scale"}
KINDS = (
    Kind("LoRA", frozenset({"down", "up"}), frozenset({"mid", *_DECOMPOSED}), _lora),
    Kind(
        "LoHa",
        frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}),
        frozenset({"hada_t1", "hada_t2", *_DECOMPOSED}),
        _loha,
    ),
    *(
        Kind("LoKr", frozenset({*outer, *inner}), frozenset({"lokr_t2", *_DECOMPOSED}), _lokr)
        for outer in (("lokr_w1",), ("lokr_w1_a", "lokr_w1_b"))
        for inner in (("lokr_w2",), ("lokr_w2_a", "lokr_w2_b"))
    ),
    Kind("GLoRA", frozenset({"a1", "a2", "b1", "b2"}), frozenset(_DECOMPOSED), _glora),
    Kind("(IA)³", frozenset({"weight", "on_input"}), frozenset(), _ia3),
    Kind("difference", frozenset({"diff"}), frozenset({"alpha"}), _difference),
    Kind("norm", frozenset({"w_norm"}), frozenset(), _norm),
)
BIASES = frozenset({"diff_b", "b_norm", "up_bias"})
"""Parts that are added to a module's bias."""
PARTS = frozenset().union(*(kind.needs | kind.may for kind in KINDS)) | BIASES


def kind_of(parts: Parts) -> Kind | None:
    """Return the kind whose parts are all there; None if there is none."""
    return next((kind for kind in KINDS if kind.needs <= set(parts)), None)


def kind_named(parts: Parts) -> str | None:
    """Name the kind of a module's parts; None if they change no more than its bias."""
    kind = kind_of(parts)
    if kind is None:
        return None
    if not {"magnitude", "dora_scale"} & set(parts):
        return kind.name
    return "DoRA" if kind.name == "LoRA" else f"{kind.name} with magnitudes"


def unused_parts(parts: Parts) -> set[str]:
    """Names of the parts that change nothing."""
    kind = kind_of(parts)
    return set(parts) - BIASES - (kind.needs | kind.may if kind else set())


def changes_of(parts: Parts, module: Parts, strength: Strength) -> dict[str, Tensor]:
    """Return the changes of a module's "weight" and "bias", in their shapes.

    Args:
        module: its weight and, where it has one, its bias; float32, as the parts are.
    Raises: Misfit.
    """
    found: dict[str, Tensor] = {}
    kind = kind_of(parts)
    if kind is not None:
        weight = module["weight"]
        try:
            change = kind.change(parts, weight, strength)
        except (RuntimeError, IndexError) as error:
            shapes = ", ".join(f"{name} {list(part.shape)}" for name, part in sorted(parts.items()))
            raise Misfit(f"its parts do not fit a weight of {list(weight.shape)}: {shapes}") from error
        found["weight"] = _decomposed(parts, weight, _shaped(change, weight))
    for name in sorted(BIASES & set(parts)):
        if "bias" not in module:
            raise Misfit("its module has no bias")
        # Only the bias of the upper factor is a part of the product.
        factor = strength(parts["down"].shape[0]) if name == "up_bias" and "down" in parts else 1.0
        change = factor * _shaped(parts[name], module["bias"])
        found["bias"] = found["bias"] + change if "bias" in found else change
    return found


def _shaped(change: Tensor, weight: Tensor) -> Tensor:
    """Give a change its weight's shape: some files flatten those of convolutions."""
    if change.shape[:1] != weight.shape[:1] or change.numel() != weight.numel():
        raise Misfit(f"{list(change.shape)} instead of {list(weight.shape)}")
    return change.reshape(weight.shape)


def _tucker(core: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Product of a core [r, s, ...] with rows [r, out] and columns [s, in]."""
    return torch.einsum("rs...,ro,si->oi...", core, rows, columns)


def _factorised(parts: Parts, name: str, core: str, weight: Tensor | None) -> Tensor:
    a, b = parts[f"{name}_a"], parts[f"{name}_b"]
    product = _tucker(parts[core], a, b) if core in parts else a @ b
    return product if weight is None else _shaped(product, weight)


def _along(values: Tensor, weight: Tensor, axis: int) -> Tensor:
    """Shape one value for each row (axis 0) or column (axis 1) to multiply a weight."""
    if values.numel() != weight.shape[axis]:
        raise Misfit(f"{values.numel()} values for {weight.shape[axis]} {('rows', 'columns')[axis]}")
    return values.reshape([-1 if dim == axis else 1 for dim in range(weight.ndim)])


def _decomposed(parts: Parts, weight: Tensor, change: Tensor) -> Tensor:
    """Change that a DoRA makes: W + Delta W, scaled to the magnitudes that the file has (DoRA Eq. 5).

    PEFT's magnitudes are of rows. LyCORIS's are of columns where their shape is [1, in, ...].
    """
    name = next((name for name in ("magnitude", "dora_scale") if name in parts), None)
    if name is None:
        return change
    magnitude = parts[name]
    columns = (
        name == "dora_scale"
        and magnitude.ndim > 1
        and magnitude.shape[0] == 1 != weight.shape[0]
        and magnitude.numel() == weight.shape[1]
    )
    axis = 1 if columns else 0
    merged = weight + change
    length = torch.linalg.vector_norm(
        merged, dim=[dim for dim in range(weight.ndim) if dim != axis], keepdim=True
    )
    # A row of zeros has no direction, and stays.
    return (
        _along(magnitude, weight, axis) / length.clamp(min=torch.finfo(length.dtype).tiny) * merged - weight
    )
