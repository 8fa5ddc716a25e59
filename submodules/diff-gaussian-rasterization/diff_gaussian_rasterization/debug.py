"""Dump for debug=True: when something goes wrong, the inputs go into a file that a bug report can attach."""

from __future__ import annotations

import os
import platform
import warnings
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import cpu
from .batched import BACKENDS, Backend
from .reference import finite
from .scene import Gaussians, Views

FORWARD, BACKWARD = "snapshot_fw.dump", "snapshot_bw.dump"
FORMAT = 1
NAMED = 20  # at most so many indices in a warning

_warned: set[str] = set()  # dumps written for warnings: a run of a million steps writes only the first one


def guarded(backend: Backend) -> Backend:
    """A backend that dumps its inputs into the working directory when it fails or finds non-finite numbers.

    snapshot_fw.dump: the forward raised, or Gaussians have non-finite parameters. snapshot_bw.dump: the backward
    raised, or made non-finite gradients of finite ones. Errors keep their type and gain a note that names the file;
    for the rest there is a warning, and a file the first time.
    """

    def run(
        g: Gaussians, views: Views, anchor: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        call = _Call(backend, g, views, values, _content(backend, g, views), torch.is_grad_enabled())
        _warn_of_nonfinite(call)
        inputs = {"means2d": anchor, **vars(g), **vars(views)}
        tensors = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
        return _Guarded.apply(call, tuple(tensors), *tensors.values())

    return run


@dataclass(frozen=True)
class _Call:
    """Call of a backend, with the content of a dump of it: tensors on the host, copied while they still can be."""

    backend: Backend
    gaussians: Gaussians
    views: Views
    values: Tensor
    content: dict[str, Any]
    differentiable: bool


class _Guarded(torch.autograd.Function):
    """Function of a backend within an autograd graph of its own, so that its backward can be watched too."""

    @staticmethod
    def forward(ctx: Any, call: _Call, names: tuple[str, ...], *tensors: Tensor) -> tuple[Tensor, ...]:
        wanted = ctx.needs_input_grad[2:]
        inputs = [tensor.detach().requires_grad_(want) for tensor, want in zip(tensors, wanted)]
        held: dict[str, Any] = dict(zip(names, inputs))
        anchor = held.pop("means2d")
        g = replace(call.gaussians, **{name: held[name] for name in vars(call.gaussians) if name in held})
        views = replace(call.views, **{name: held[name] for name in vars(call.views) if name in held})
        try:
            with torch.set_grad_enabled(call.differentiable):
                outputs = call.backend(g, views, anchor, call.values)
            _synchronize(anchor.device)
        except Exception as error:
            _annotate(error, _dump(FORWARD, call.content, repr(error)))
            raise
        images, others = outputs[:3], outputs[3:]
        ctx.call, ctx.names, ctx.inputs, ctx.images = call, names, inputs, images
        ctx.mark_non_differentiable(*others)
        ctx.set_materialize_grads(False)
        return (*(image.detach() for image in images), *others)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        content = ctx.call.content | {"upstream": [_on_host(gradient) for gradient in upstream[:3]]}
        images, given = zip(*((i, u) for i, u in zip(ctx.images, upstream) if u is not None))
        wanted = {name: tensor for name, tensor in zip(ctx.names, ctx.inputs) if tensor.requires_grad}
        try:
            found = torch.autograd.grad(
                images, list(wanted.values()), given, retain_graph=True, allow_unused=True
            )
            _synchronize(given[0].device)
        except Exception as error:
            _annotate(error, _dump(BACKWARD, content, repr(error)))
            raise
        gradients = dict(zip(wanted, found))
        if all(gradient.isfinite().all() for gradient in given):
            _warn_of_gradients(content, gradients)
        return (None, None, *(gradients.get(name) for name in ctx.names))


def _warn_of_nonfinite(call: _Call) -> None:
    """Warn of Gaussians with non-finite parameters."""
    found = (~finite(call.gaussians, call.views.sh_degree)).nonzero().squeeze(1).tolist()
    if found:
        indices = ", ".join(map(str, found[:NAMED])) + (", ..." if len(found) > NAMED else "")
        message = f"{len(found)} Gaussians have non-finite parameters and are not drawn: {indices}."
        _warn(FORWARD, call.content, message)


def _warn_of_gradients(content: dict[str, Any], gradients: dict[str, Tensor | None]) -> None:
    """Warn of gradients that are not finite."""
    bad = [name for name, found in gradients.items() if found is not None and not found.isfinite().all()]
    if bad:
        message = f"The rasterizer made non-finite gradients of {', '.join(bad)} out of finite ones."
        _warn(BACKWARD, content, message)


def _warn(name: str, content: dict[str, Any], message: str) -> None:
    if name not in _warned:
        _warned.add(name)
        message = f"{message} {_dump(name, content, message)}"
    warnings.warn(message, stacklevel=7)


def _annotate(error: Exception, note: str) -> None:
    """Add a note below the error's message where Python can do that (3.11), else as a warning."""
    if hasattr(error, "add_note"):
        error.add_note(note)
    else:
        warnings.warn(note, stacklevel=2)


def _synchronize(device: torch.device) -> None:
    """Wait, so that an error of a kernel appears here."""
    torch.get_device_module(device).synchronize()


def _content(backend: Backend, g: Gaussians, views: Views) -> dict[str, Any]:
    """Content of a dump, but for the reason and the upstream gradients: plain values, and tensors on the host."""
    device = g.means.device
    name = next((name for name, known in BACKENDS.items() if known is backend), backend.__name__)
    return {
        "format": FORMAT,
        "gaussians": {key: _on_host(value) for key, value in vars(g).items()},
        "views": {key: _on_host(value) for key, value in vars(views).items()},
        "upstream": None,
        "backend": f"{name} {cpu.chosen_level()}" if name == "cpu" else name,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "versions": {
            "diff-gaussian-rasterization": _version(),
            "torch": str(torch.__version__),
            "python": platform.python_version(),
            "platform": platform.platform(),
        },
    }


def _version() -> str:
    try:
        return metadata.version("diff-gaussian-rasterization")
    except metadata.PackageNotFoundError:
        return "not installed"


def _on_host(value: Any) -> Any:
    return value.detach().cpu() if isinstance(value, Tensor) else value


def _own(value: Any) -> Any:
    """Tensors without the rest of the storage that they may be views of."""
    if isinstance(value, dict):
        return {key: _own(held) for key, held in value.items()}
    if isinstance(value, list):
        return [_own(held) for held in value]
    return value.clone(memory_format=torch.contiguous_format) if isinstance(value, Tensor) else value


def _dump(name: str, content: dict[str, Any], reason: str) -> str:
    """Write the file and report it, or why not: whatever goes wrong here must not hide what went wrong before."""
    partial = Path(f"{name}.{os.getpid()}")
    try:
        try:
            with partial.open("wb") as file:
                torch.save({**_own(content), "reason": reason}, file)
            partial.replace(name)
        finally:
            partial.unlink(missing_ok=True)
        path = Path(name).absolute()
    except Exception as failure:
        return f"Its inputs could not be written to {name}: {failure}."
    return f"Its inputs are in {path}: `python -m diff_gaussian_rasterization.replay {path}` replays them."
