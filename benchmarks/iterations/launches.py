"""Count what the host issues to a device: operations that start kernels there, fresh memory, and copies to it."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
FREE = {
    aten.empty,
    aten.empty_like,
    aten.empty_strided,
    aten.new_empty,
    aten.new_empty_strided,
    aten._unsafe_view,
    aten._reshape_alias,
    aten.lift_fresh,
    aten.set_,
    torch.ops.prim.device,
}
"""Operations that start nothing on the device, besides views."""
COPIES = {aten._to_copy, aten.copy_, aten.copy}


@dataclass
class Counts:
    """Counts of what the host issues to a device.

    launches: operations that start a kernel on the device, one each (some start more), by name; allocations:
    fresh storages there; copies: between host and device; on_host: operations of torch on the host alone;
    calls: of the device's driver, past torch; ns: of processor time.
    """

    launches: Counter[str] = field(default_factory=Counter)
    allocations: int = 0
    copies: int = 0
    on_host: int = 0
    calls: int = 0
    ns: int = 0


class Launches(TorchDispatchMode):
    """Counter of what runs inside it, forward and backward, in parts.

    device: the one that counts as such; counts: what was found, by part. It notes processor time always, and operations
    only while it is entered, for counting them takes time.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.counts: dict[str, Counts] = defaultdict(Counts)
        self._device, self._part, self._since = device, "", time.thread_time_ns()

    def turn_to(self, part: str) -> str:
        """Count what comes for `part`. Returns the part that it counted for before."""
        now, before = time.thread_time_ns(), self._part
        self.counts[before].ns += now - self._since
        self._part, self._since = part, now
        return before

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Count all inside for `part`, unless someone turns to another one."""
        before = self.turn_to(part)
        try:
            yield
        finally:
            self.turn_to(before)

    def called(self, function: str) -> None:
        """Note a call of the device's driver."""
        self.counts[self._part].calls += 1
        if function == "cuLaunchKernel":
            self.counts[self._part].launches["rasterizer's"] += 1

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given, made = self._tensors((args, kwargs)), self._tensors(result)
        counts, operation = self.counts[self._part], func.overloadpacket
        here = [tensor.device == self._device for tensor in (*given, *made)]
        if not any(here):
            counts.on_host += operation not in FREE and not func.is_view
            return result
        if operation in COPIES and not all(here):
            counts.copies += 1
        elif operation not in FREE and not func.is_view:
            counts.launches[operation.__name__] += 1
        held = {_storage(tensor) for tensor in given}
        fresh = {_storage(tensor) for tensor in made if tensor.device == self._device} - held
        counts.allocations += len(fresh)
        return result

    @staticmethod
    def _tensors(tree: Any) -> list[Tensor]:
        return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
