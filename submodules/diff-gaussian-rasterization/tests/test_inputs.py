"""Check that every wrong argument gets one sentence that names it, and every unusual but right one just works."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diff_gaussian_rasterization import GaussianRasterizationSettings, GaussianRasterizer, rasterize
from diff_gaussian_rasterization.scene import Gaussians, Views, check_gaussians, check_views

BACKENDS = ["cpu", "reference"]
PARAMETERS = ["means", "scales", "rotations", "opacities", "shs", "colors", "covariances"]
TENSORS = [*PARAMETERS, "viewmats", "focals", "principals", "background"]


def _arguments(tools: Any, name: str) -> dict[str, Any]:
    """Arguments of a scene that contain this one."""
    scene = tools.scene(
        5, views=2, degree=None if name == "colors" else 1, covariances=name == "covariances", size=0.3
    )
    return {"scales": None, "rotations": None, **scene.gaussians, **scene.cameras}


def _quantized(tensor: Tensor) -> Tensor:
    return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


MISHAPS: dict[str, tuple[Callable[[Tensor], Any], type[Exception], str]] = {
    "list": (Tensor.tolist, TypeError, "of type list, it must be a Tensor"),
    "array": (Tensor.numpy, TypeError, "of type ndarray, it must be a Tensor"),
    "integers": (Tensor.long, TypeError, "of torch.int64, it must be of float16"),
    "booleans": (Tensor.bool, TypeError, "of torch.bool, it must be of float16"),
    "complex": (lambda t: t.to(torch.complex64), TypeError, "of torch.complex64, it must be of float16"),
    "quantized": (_quantized, TypeError, "of torch.qint8, it must be of float16"),
    "sparse": (Tensor.to_sparse, TypeError, "is torch.sparse_coo, it must be a dense tensor"),
    "nested": (lambda t: torch.nested.nested_tensor(list(t)), TypeError, "is nested, it must be a dense"),
    "meta": (lambda t: t.to("meta"), ValueError, "on the meta device, where there are no numbers"),
    "number": (lambda t: t.flatten()[0], ValueError, r"has shape \[\], it must be \["),
    "one rank too many": (lambda t: t[None], ValueError, r"has shape \[1, .*, it must be \["),
    "one column too few": (lambda t: t[..., :-1], ValueError, "has shape"),
    "no column": (lambda t: t[..., :0], ValueError, r"has shape \[.*0\], it must be \["),
}


@pytest.mark.filterwarnings("ignore:.*(quantize_per_tensor|nested tensors)")
@pytest.mark.parametrize("mishap", MISHAPS)
@pytest.mark.parametrize("name", TENSORS)
def test_a_wrong_tensor_is_named(name: str, mishap: str, tools: Any) -> None:
    arguments = _arguments(tools, name)
    distort, error, sentence = MISHAPS[mishap]
    arguments[name] = distort(arguments[name])
    with pytest.raises(error, match=f"^{name} .*{sentence}") as caught:
        rasterize(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in TENSORS if name not in ("means", "viewmats")])
def test_a_tensor_of_another_length_is_named(name: str, tools: Any) -> None:
    arguments = _arguments(tools, name)
    rows = len(arguments[name])
    for wrong in (arguments[name][:-1], arguments[name][:0], arguments[name].repeat_interleave(3, dim=0)):
        shapes = rf"{name} has shape \[{len(wrong)}, .*it must be \[{rows}"
        with pytest.raises(ValueError, match=shapes if name != "opacities" else "opacities has shape"):
            rasterize(**(arguments | {name: wrong}))


@pytest.mark.parametrize("name", ["means", "opacities", "viewmats", "focals", "principals", "background"])
def test_what_cannot_be_left_out_is_named(name: str, tools: Any) -> None:
    with pytest.raises(TypeError, match=f"{name} is of type NoneType"):
        rasterize(**(_arguments(tools, name) | {name: None}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("width", value) for value in (0, -3, 65536, 10**12, 48.0, math.nan, True, "48", None)),
        *(("height", value) for value in (0, 70_000, torch.tensor(40))),
        *(("sh_degree", value) for value in (-1, 4, 1.0, True, None)),
        *(("near", value) for value in (0.0, -1, math.nan, math.inf, "0.2", None, torch.ones(2))),
        *(("scale_modifier", value) for value in (math.nan, -math.inf, "1", None, torch.ones(3), 1j)),
        *(("antialiasing", value) for value in ("no", None, 2)),
    ],
)
def test_a_wrong_number_is_named(name: str, value: Any, tools: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} is .*, it must be ") as caught:
        rasterize(**(_arguments(tools, "shs") | {name: value}))
    assert repr(value) in str(caught.value)


def test_no_view_and_too_many_pairs_are_named(tools: Any) -> None:
    arguments = _arguments(tools, "shs")
    none = {name: arguments[name][:0] for name in ("viewmats", "focals", "principals", "background")}
    with pytest.raises(ValueError, match="at least one view"):
        rasterize(**(arguments | none))
    many = {name: arguments[name][:1].expand(2**31, *arguments[name].shape[1:]) for name in PARAMETERS[:5]}
    with pytest.raises(ValueError, match=r"2 views of 2147483648 Gaussians are 4294967296 pairs"):
        rasterize(**(arguments | many))


def test_tensors_on_several_devices_are_named(tools: Any) -> None:
    arguments = _arguments(tools, "colors")
    tensors = {name: arguments[name] for name in ("means", "scales", "rotations", "colors")}
    gaussians = Gaussians(**tensors, opacities=arguments["opacities"][:, 0], covariances=None, shs=None)
    with pytest.raises(ValueError, match=r"several devices \(cpu, meta\)"):
        check_gaussians(replace(gaussians, colors=gaussians.colors.to("meta")), 0)
    cameras = {name: arguments[name] for name in ("viewmats", "focals", "principals", "width", "height")}
    views = Views(
        **cameras,
        backgrounds=arguments["background"],
        sh_degree=0,
        scale_modifier=1.0,
        near=0.2,
        antialiasing=False,
    )
    check_views(views, gaussians.means)
    with pytest.raises(ValueError, match="focals is on meta, it must be on cpu"):
        check_views(replace(views, focals=views.focals.to("meta")), gaussians.means)


def _spread(tensor: Tensor) -> Tensor:
    """Tensor of the same numbers, every other one in memory."""
    wide = torch.empty(*tensor.shape[:-1], 2 * tensor.shape[-1], dtype=tensor.dtype)
    wide[..., ::2] = tensor
    return wide[..., ::2]


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "spread": _spread,
    "transposed": lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),
    "offset": lambda t: torch.cat([t[:1], t])[1:],
    "negated": lambda t: torch._neg_view(-t),
    "parameter": lambda t: torch.nn.Parameter(t, requires_grad=False),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_in_memory_does_not_matter(backend: str, layout: str, tools: Any) -> None:
    for name in ("colors", "covariances", "shs"):
        arguments = _arguments(tools, name)
        changed = {n: LAYOUTS[layout](a) if isinstance(a, Tensor) else a for n, a in arguments.items()}
        expected = rasterize(**arguments, backend=backend)
        actual = rasterize(**changed, backend=backend)
        assert expected.alpha.max() > 0.1
        for image in ("rgb", "depth", "alpha", "radii", "means2d"):
            assert torch.equal(getattr(actual, image), getattr(expected, image)), image


@pytest.mark.parametrize("backend", BACKENDS)
def test_expanded_inputs_gather_the_gradients_of_their_copies(backend: str, tools: Any) -> None:
    arguments = _arguments(tools, "colors")
    row = torch.rand(1, 3, generator=torch.Generator().manual_seed(3))
    leaves = {"expanded": row.clone().requires_grad_(), "copied": row.repeat(5, 1).requires_grad_()}
    for leaf in leaves.values():
        rasterize(
            **(arguments | {"colors": leaf.expand(5, 3)}), backend=backend
        ).rgb.square().sum().backward()
    assert torch.allclose(leaves["expanded"].grad[0], leaves["copied"].grad.sum(0), rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_pass_through_what_is_no_leaf(backend: str, tools: Any) -> None:
    arguments = _arguments(tools, "shs")
    logits = torch.zeros(5, 1, requires_grad=True)
    out = rasterize(**(arguments | {"opacities": logits.sigmoid()}), backend=backend)
    out.alpha.sum().backward()
    assert logits.grad.abs().sum() > 0


def test_upstream_gradients_of_any_layout(tools: Any) -> None:
    """Gradients are expanded, transposed, of another type or with the sign still to be applied."""
    arguments = _arguments(tools, "shs")
    means = arguments["means"].requires_grad_()
    shape = rasterize(**arguments).rgb.shape
    upstream = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    grads = []
    for g in (upstream, LAYOUTS["transposed"](upstream), LAYOUTS["negated"](upstream), _spread(upstream)):
        grads.append(torch.autograd.grad(rasterize(**arguments).rgb, means, g)[0])
    assert all(torch.equal(g, grads[0]) for g in grads)
    ones = torch.autograd.grad(rasterize(**arguments).rgb.sum(), means)[0]
    assert torch.equal(ones, torch.autograd.grad(rasterize(**arguments).rgb, means, torch.ones(shape))[0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", TENSORS)
def test_floating_types_may_be_mixed(backend: str, dtype: torch.dtype, name: str, tools: Any) -> None:
    """A tensor of another type acts as if it had been converted to float32 before; its gradient has its own type."""
    arguments = _arguments(tools, name)
    arguments[name] = arguments[name].to(dtype)
    single = rasterize(**(arguments | {name: arguments[name].float()}), backend=backend)
    if name in PARAMETERS:
        arguments[name].requires_grad_()
    mixed = rasterize(**arguments, backend=backend)
    assert torch.allclose(mixed.rgb.float(), single.rgb, atol=1e-5)
    if name in PARAMETERS:
        mixed.rgb.sum().backward()
        assert arguments[name].grad.dtype == dtype


@pytest.mark.parametrize("backend", BACKENDS)
def test_opacities_in_a_row_or_in_a_column(backend: str, tools: Any) -> None:
    arguments = _arguments(tools, "shs")
    assert arguments["opacities"].shape == (5, 1)
    column = rasterize(**arguments, backend=backend)
    row = rasterize(**(arguments | {"opacities": arguments["opacities"][:, 0]}), backend=backend)
    assert torch.equal(column.rgb, row.rgb)


def test_numbers_of_other_types(tools: Any) -> None:
    arguments = _arguments(tools, "shs")
    expected = rasterize(**arguments)
    numbers = {
        "width": np.int64(48),
        "height": np.int32(40),
        "sh_degree": np.uint8(1),
        "near": np.float32(0.2),
    }
    assert torch.equal(rasterize(**(arguments | numbers)).rgb, expected.rgb)
    assert torch.equal(rasterize(**(arguments | {"near": torch.tensor(0.2)})).rgb, expected.rgb)


def _settings(**changes: Any) -> GaussianRasterizationSettings:
    camera: dict[str, Any] = {
        "image_height": 20,
        "image_width": 30,
        "tanfovx": 0.5,
        "tanfovy": 0.4,
        "bg": torch.zeros(3),
        "scale_modifier": 1.0,
        "viewmatrix": torch.eye(4),
        "projmatrix": torch.eye(4),
        "sh_degree": 0,
        "campos": torch.zeros(3),
        "prefiltered": False,
    }
    return GaussianRasterizationSettings(**(camera | changes))


def _draw(settings: GaussianRasterizationSettings, **changes: Any) -> tuple[Tensor, Tensor, Tensor]:
    gaussians: dict[str, Any] = {
        "means3D": torch.tensor([[0.0, 0.0, 3.0]]).repeat(4, 1),
        "means2D": torch.zeros(4, 3),
        "opacities": torch.full((4, 1), 0.5),
        "colors_precomp": torch.ones(4, 3),
        "scales": torch.full((4, 3), 0.1),
        "rotations": torch.eye(4),
    }
    return GaussianRasterizer(settings)(**(gaussians | changes))


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("image_width", 30.0, ValueError),
        ("image_height", 0, ValueError),
        ("tanfovx", 0.0, ValueError),
        ("tanfovy", math.nan, ValueError),
        ("tanfovx", "wide", ValueError),
        ("scale_modifier", math.inf, ValueError),
        ("bg", torch.zeros(4), ValueError),
        ("bg", torch.zeros(1, 3), ValueError),
        ("bg", [0, 0, 0], TypeError),
        ("bg", torch.zeros(3, dtype=torch.int32), TypeError),
        ("viewmatrix", torch.eye(3), ValueError),
        ("viewmatrix", torch.eye(4)[None], ValueError),
        ("projmatrix", torch.eye(4).tolist(), TypeError),
        ("antialiasing", "yes", ValueError),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"^{name} "):
        _draw(_settings(**{name: value}))


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"means2D": torch.zeros(3, 3)}, ValueError, r"means2D has shape \[3, 3\], it must be \[4, 3\]"),
        ({"means2D": torch.zeros(4, 2)}, ValueError, r"means2D has shape \[4, 2\], it must be \[4, 3\]"),
        ({"means2D": None}, TypeError, "means2D is of type NoneType"),
        ({"means2D": torch.zeros(4, 3, dtype=torch.int64)}, TypeError, "means2D is of torch.int64"),
        ({"means3D": torch.zeros(4, 2)}, ValueError, r"means has shape \[4, 2\], it must be \[N, 3\]"),
        ({"means3D": [[0.0, 0.0, 3.0]]}, TypeError, "means3D is of type list"),
        ({"opacities": torch.ones(4, 2)}, ValueError, r"opacities has shape \[4, 2\]"),
        ({"colors_precomp": torch.ones(4, 3).bool()}, TypeError, "colors_precomp is of torch.bool"),
        ({"rotations": torch.eye(4).to_sparse()}, TypeError, "rotations is torch.sparse_coo"),
        ({"cov3D_precomp": np.zeros((4, 6))}, TypeError, "cov3D_precomp is of type ndarray"),
    ],
)
def test_a_wrong_gaussian_is_named(changes: dict[str, Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        _draw(_settings(), **changes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
@pytest.mark.parametrize("name", ["bg", "viewmatrix", "projmatrix"])
def test_settings_may_mix_floating_types(name: str, dtype: torch.dtype) -> None:
    expected = _draw(_settings())
    mixed = _draw(_settings(**{name: getattr(_settings(), name).to(dtype)}))
    assert expected[0].max() > 0.5
    assert all(torch.allclose(a, b) for a, b in zip(mixed, expected))
