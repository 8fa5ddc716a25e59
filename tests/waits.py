"""A device that nobody may wait for: torch's meta tensors, and a mode under which every wait raises.

An accelerator's host runs ahead of the device and fills its queue. A look at a result makes it stand still until the
queue is empty: `item()`, `bool()`, a mask as an index, or a copy that is not `non_blocking`. Meta tensors have
shapes and no values, so that code which runs on them has looked at none. What they alone let pass is refused here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("meta")
"""Stand-in for the accelerator."""

aten = torch.ops.aten
COPIES = {aten._to_copy, aten.copy_, aten.copy}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
LOOKS = {
    aten._local_scalar_dense,
    aten.is_nonzero,
    aten.nonzero,
    aten.masked_select,
    aten.equal,
    aten.allclose,
    aten._unique2,
    aten.unique_consecutive,
    aten.unique_dim,
    aten.bincount,
    aten._linalg_check_errors,
}
"""Operations whose result, or the size of it, is known only when the device is done."""


class Wait(AssertionError):
    """Error where the host would have waited for the device."""


class _NoWaits(TorchDispatchMode):
    """Mode that refuses operations."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        operation = func.overloadpacket
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if operation in LOOKS and any(tensor.device == DEVICE for tensor in tensors):
            raise Wait(f"{func} on the device")
        if operation in INDEXING and tensors[0].device == DEVICE:
            _check_indices(func, tensors[1:], tree_leaves(args[1]))
        if operation in COPIES:
            source, target, asked = _copy(operation, args, kwargs)
            if DEVICE in (source, target) and source != target and not (asked and target == DEVICE):
                raise Wait(f"{func} from {source} to {target} without non_blocking=True, or to the host")
        return func(*args, **kwargs)


def _check_indices(func: Any, used: Sequence[Tensor], indices: Sequence[Tensor | None]) -> None:
    if any(tensor.device != DEVICE and tensor.dim() for tensor in used):
        raise Wait(f"{func} of a device tensor with one on the host, which is copied first")
    if any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices):
        raise Wait(
            f"{func} of a device tensor with a mask: torch.where and masked_fill need none as an index"
        )


def _copy(
    operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[torch.device, torch.device, bool]:
    """Source, target and `non_blocking` of a copy."""
    if operation is aten._to_copy:
        source = args[0].device
        return source, kwargs.get("device") or source, kwargs.get("non_blocking", False)
    target, source = args[0].device, args[1].device
    return source, target, args[2] if len(args) > 2 else kwargs.get("non_blocking", False)


class _NoLiterals(TorchFunctionMode):
    """Mode that refuses what becomes a tensor on the host first, and for DEVICE alone does not."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.__getitem__, Tensor.__setitem__) and args[0].device == DEVICE:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(part, (list, np.ndarray)) for part in index):
                raise Wait("a device tensor with a list as its index, which is copied first")
        result = func(*args, **kwargs)
        literal = func in (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)
        data = args[1] if func is Tensor.new_tensor else args[0] if args else None
        if literal and result.device == DEVICE and not isinstance(data, Tensor):
            raise Wait(f"{func.__name__} of numbers on the device")
        return result


@contextmanager
def no_waits() -> Iterator[None]:
    """Refuse every wait for DEVICE by a `Wait`: forward, backward and in an optimizer's step."""
    with _NoLiterals(), _NoWaits():
        yield
