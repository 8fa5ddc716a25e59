"""Every kind of change, applied to an input in float64 as its definition has it, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from guidance.prior.lora_kinds import Misfit, changes_of, kind_named

OUT, IN, RANK, STRENGTH = 6, 4, 2, 0.75
KERNELS = {"linear": (), "pixel": (1, 1), "convolution": (3, 3)}
Layer = Callable[[Tensor], Tensor]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape) + 100 * seed))


def layer(weight: Tensor) -> Layer:
    """Map of an input by a weight in float64: linear, or a convolution that keeps the size."""
    if weight.ndim == 2:
        return lambda x: x @ weight.double().T
    return lambda x: F.conv2d(x, weight.double(), padding=weight.shape[-1] // 2)


def loops(rows: int, columns: int, entry: Callable[[int, int], np.ndarray]) -> Tensor:
    """Weight whose entry [row, column] is a number or a kernel, in float64."""
    return torch.from_numpy(np.stack([[entry(o, i) for i in range(columns)] for o in range(rows)]))


def lora(kernel: tuple[int, ...], weight: Tensor) -> tuple[dict[str, Tensor], Layer]:
    parts = {"down": random(RANK, IN, *kernel), "up": random(OUT, RANK, *(1 for _ in kernel))}
    down, up = layer(parts["down"]), layer(parts["up"])
    return parts, lambda x: STRENGTH * up(down(x))


def tucker(kernel: tuple[int, ...], weight: Tensor) -> tuple[dict[str, Tensor], Layer]:
    one = tuple(1 for _ in kernel)
    parts = {"down": random(RANK, IN, *one), "up": random(OUT, RANK, *one)}
    parts["mid"] = random(RANK, RANK, *kernel)
    down, mid, up = (layer(parts[name]) for name in ("down", "mid", "up"))
    return parts, lambda x: STRENGTH * up(mid(down(x)))


def loha(kernel: tuple[int, ...], weight: Tensor) -> tuple[dict[str, Tensor], Layer]:
    flat = IN * int(np.prod(kernel, dtype=int))
    parts = {f"hada_w{n}_a": random(OUT, RANK, seed=n) for n in (1, 2)}
    parts |= {f"hada_w{n}_b": random(RANK, flat, seed=n) for n in (1, 2)}
    a, b, c, d = (parts[f"hada_w{name}"].double().numpy() for name in ("1_a", "1_b", "2_a", "2_b"))

    def entry(o: int, i: int) -> np.ndarray:
        first = sum(a[o, r] * b[r, i] for r in range(RANK))
        return np.asarray(STRENGTH * first * sum(c[o, r] * d[r, i] for r in range(RANK)))

    return parts, layer(loops(OUT, flat, entry).reshape(OUT, IN, *kernel))


def loha_tucker(kernel: tuple[int, ...], weight: Tensor) -> tuple[dict[str, Tensor], Layer]:
    parts = {f"hada_w{n}_a": random(RANK, OUT, seed=n) for n in (1, 2)}
    parts |= {f"hada_w{n}_b": random(RANK, IN, seed=n) for n in (1, 2)}
    parts |= {f"hada_t{n}": random(RANK, RANK, *kernel, seed=n) for n in (1, 2)}
    whole = {name: values.double().numpy() for name, values in parts.items()}

    def half(n: int, o: int, i: int) -> np.ndarray:
        core, rows, columns = (whole[f"hada_{name}"] for name in (f"t{n}", f"w{n}_a", f"w{n}_b"))
        terms = [rows[r, o] * columns[s, i] * core[r, s] for r, s in product(range(RANK), repeat=2)]
        return np.sum(terms, axis=0)

    return parts, layer(loops(OUT, IN, lambda o, i: np.asarray(STRENGTH * half(1, o, i) * half(2, o, i))))


def lokr(whole_outer: bool, inner: str) -> Callable[..., tuple[dict[str, Tensor], Layer]]:
    def made(kernel: tuple[int, ...], weight: Tensor) -> tuple[dict[str, Tensor], Layer]:
        rows, columns, pixels = OUT // 2, IN // 2, int(np.prod(kernel, dtype=int))
        if whole_outer:
            parts = {"lokr_w1": random(2, 2)}
            w1 = parts["lokr_w1"].double().numpy()
        else:
            parts = {"lokr_w1_a": random(2, RANK), "lokr_w1_b": random(RANK, 2, seed=1)}
            w1 = parts["lokr_w1_a"].double().numpy() @ parts["lokr_w1_b"].double().numpy()
        if inner == "whole":
            parts["lokr_w2"] = random(rows, columns, *kernel)
            w2 = parts["lokr_w2"].double().numpy()
        elif inner == "tucker":
            parts["lokr_t2"] = random(RANK, RANK, *kernel)
            parts["lokr_w2_a"], parts["lokr_w2_b"] = random(RANK, rows), random(RANK, columns)
            core, a, b = (parts[f"lokr_{name}"].double().numpy() for name in ("t2", "w2_a", "w2_b"))
            pairs = list(product(range(RANK), repeat=2))
            w2 = loops(
                rows, columns, lambda k, n: np.sum([a[r, k] * b[s, n] * core[r, s] for r, s in pairs], axis=0)
            ).numpy()
        else:
            parts["lokr_w2_a"], parts["lokr_w2_b"] = random(rows, RANK), random(RANK, columns * pixels)
            w2 = parts["lokr_w2_a"].double().numpy() @ parts["lokr_w2_b"].double().numpy()
            w2 = w2.reshape(rows, columns, *kernel)
        factor = 1.0 if whole_outer and inner == "whole" else STRENGTH
        return parts, layer(
            loops(
                *(OUT, IN),
                lambda o, i: np.asarray(factor * w1[o // rows, i // columns] * w2[o % rows, i % columns]),
            )
        )

    return made


def glora(kernel: tuple[int, ...], weight: Tensor) -> tuple[dict[str, Tensor], Layer]:
    one = tuple(1 for _ in kernel)
    parts = {"a2": random(RANK, IN, *one), "a1": random(IN, RANK, *one)}
    parts |= {"b2": random(RANK, IN, *kernel, seed=1), "b1": random(OUT, RANK, *one, seed=1)}
    a1, a2, b1, b2 = (layer(parts[name]) for name in ("a1", "a2", "b1", "b2"))
    whole = layer(weight)
    return parts, lambda x: STRENGTH * (whole(a1(a2(x))) + b1(b2(x)))


def older_glora(kernel: tuple[int, ...], weight: Tensor) -> tuple[dict[str, Tensor], Layer]:
    parts, expected = glora(kernel, weight)
    return {"a1": parts["a2"], "a2": parts["a1"], "b1": parts["b2"], "b2": parts["b1"]}, expected


def ia3_input(kernel: tuple[int, ...], weight: Tensor) -> tuple[dict[str, Tensor], Layer]:
    values = random(1, IN, 1, 1) if kernel else random(IN)
    whole = layer(weight)
    each = values.double().reshape(-1, *(1 for _ in kernel))
    return {"weight": values, "on_input": torch.tensor(1.0)}, lambda x: whole(x * each)


def ia3_output(kernel: tuple[int, ...], weight: Tensor) -> tuple[dict[str, Tensor], Layer]:
    values = random(1, OUT, 1, 1) if kernel else random(OUT)
    whole = layer(weight)
    each = values.double().reshape(-1, *(1 for _ in kernel))
    return {"weight": values, "on_input": torch.tensor(0.0)}, lambda x: whole(x) * each


def difference(kernel: tuple[int, ...], weight: Tensor) -> tuple[dict[str, Tensor], Layer]:
    values = random(OUT, IN, *kernel, seed=3)
    return {"diff": values}, layer(values)


KINDS = {
    "LoRA": lora,
    "LoRA, Tucker": tucker,
    "LoHa": loha,
    "LoHa, Tucker": loha_tucker,
    **{
        f"LoKr, {'whole' if whole else 'factors'}, {inner}": lokr(whole, inner)
        for whole in (True, False)
        for inner in ("whole", "factors", "tucker")
    },
    "GLoRA": glora,
    "GLoRA, older": older_glora,
    "(IA)³, input": ia3_input,
    "(IA)³, output": ia3_output,
    "difference": difference,
}


def strength(rank: int | None) -> float:
    assert rank in (RANK, None)
    return STRENGTH if rank else 1.0


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_changes_what_its_layers_do(name: str) -> None:
    for kernel in KERNELS.values():
        if "ucker" in name and not kernel:
            continue
        weight = random(OUT, IN, *kernel, seed=5)
        parts, expected = KINDS[name](kernel, weight)
        assert kind_named(parts) == name.split(",")[0]
        change = changes_of(parts, {"weight": weight}, strength)["weight"]
        x = random(3, IN, *(7 for _ in kernel)).double()
        torch.testing.assert_close(layer(change)(x), expected(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", ["magnitude", "rows", "columns"])
@pytest.mark.parametrize("name", ["LoRA", "LoKr, factors, factors", "GLoRA"])
def test_magnitudes_are_the_lengths_of_rows_or_columns(name: str, shape: str) -> None:
    """The merged weight points where W + Delta W does, and is as long as the file has it (DoRA Eq. 5)."""
    for kernel in KERNELS.values():
        weight = random(OUT, IN, *kernel, seed=5)
        parts, _ = KINDS[name](kernel, weight)
        change = changes_of(parts, {"weight": weight}, strength)["weight"]
        count, axis = (IN, 1) if shape == "columns" else (OUT, 0)
        lengths = random(count).abs() + 0.1
        one = tuple(1 for _ in kernel)
        # PEFT has [out] or [1, out, 1, 1]; LyCORIS has [out, 1, ...] or, in its older way, [1, in, ...].
        sizes = {
            "magnitude": (1, OUT, *one) if kernel else (OUT,),
            "rows": (OUT, 1, *one),
            "columns": (1, IN, *one),
        }
        part = "magnitude" if shape == "magnitude" else "dora_scale"
        changed = changes_of({**parts, part: lengths.reshape(sizes[shape])}, {"weight": weight}, strength)
        merged = (weight + changed["weight"]).double()
        direction = (weight + change).double()
        for index in range(count):
            one_row, its_direction = merged.select(axis, index), direction.select(axis, index)
            assert float(one_row.norm()) == pytest.approx(float(lengths[index]), rel=1e-5)
            cosine = F.cosine_similarity(one_row.flatten(), its_direction.flatten(), dim=0)
            assert float(cosine) == pytest.approx(1, abs=1e-6)


def test_biases_are_added_and_norms_too() -> None:
    weight, bias = random(OUT), random(OUT, seed=1)
    parts = {"w_norm": random(OUT, seed=2), "b_norm": random(OUT, seed=3)}
    changes = changes_of(parts, {"weight": weight, "bias": bias}, strength)
    assert torch.equal(changes["weight"], parts["w_norm"])
    assert torch.equal(changes["bias"], parts["b_norm"])
    both, _ = lora((), random(OUT, IN))
    both |= {"diff_b": random(OUT, seed=4), "up_bias": random(OUT, seed=5)}
    changes = changes_of(both, {"weight": random(OUT, IN), "bias": bias}, strength)
    torch.testing.assert_close(changes["bias"], both["diff_b"] + STRENGTH * both["up_bias"])


def test_parts_that_do_not_fit_name_both_sizes() -> None:
    parts, _ = lora((), random(OUT, IN))
    with pytest.raises(Misfit, match=r"\[6, 4\] instead of \[4, 6\]"):
        changes_of(parts, {"weight": random(IN, OUT)}, strength)
    with pytest.raises(Misfit, match=r"do not fit a weight of \[6, 4\]: down \[3, 4\], up \[6, 2\]"):
        changes_of({**parts, "down": random(3, IN)}, {"weight": random(OUT, IN)}, lambda rank: 1.0)
    with pytest.raises(Misfit, match="5 values for 6 rows"):
        changes_of({**parts, "magnitude": random(5)}, {"weight": random(OUT, IN)}, strength)
