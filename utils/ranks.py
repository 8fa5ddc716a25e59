"""The processes that work on one asset together, each on its own device: `torchrun --nproc_per_node=N train.py ...`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from utils.device import collectives


@dataclass(frozen=True)
class Ranks:
    """Process `rank` of `count`, `local` among those of its machine.

    Alone, its exchanges cost nothing and change nothing. Whatever is summed, gathered or compared has the same
    shape in all processes, which come to it in the same order.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """True for the one process that writes and reports for all."""
        return self.rank == 0

    def share(self, views: int, together: int = 1) -> range:
        """Return this process's share of an iteration's `views`: as many as the others', give or take one.

        together: views that are not parted, a divisor of their number; the shares then differ by so many at most.
        """
        first, last = (rank * (views // together) // self.count for rank in (self.rank, self.rank + 1))
        return range(together * first, together * last)

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each of `tensors` by its sum over the processes, the same to the last bit in all."""
        if self.count > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def max_(self, tensor: Tensor) -> None:
        """Replace `tensor` by its elementwise maximum over the processes."""
        if self.count > 1:
            dist.all_reduce(tensor, dist.ReduceOp.MAX)

    def all_views(self, tensor: Tensor, views: int, together: int = 1) -> Tensor:
        """Gather the rows of all an iteration's `views`, of which `tensor` holds those of this process's `share`."""
        if self.count == 1:
            return tensor
        lengths = [len(Ranks(rank, self.count).share(views, together)) for rank in range(self.count)]
        # Padded, for rows are gathered in equal numbers.
        padded = tensor.new_zeros(max(lengths), *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        found = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(found, padded)
        return torch.cat([rows[:length] for rows, length in zip(found, lengths)])

    def take_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Replace each of `tensors` by its value in the first process."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def least(self, number: int, device: torch.device) -> int:
        """Return the smallest `number` of all processes."""
        if self.count == 1:
            return number
        shared = torch.tensor(number, device=device)
        dist.all_reduce(shared, dist.ReduceOp.MIN)
        return int(shared)

    def greatest(self, number: int, device: torch.device) -> int:
        """Return the largest `number` of all processes."""
        return -self.least(-number, device)

    def check_same(self, tensors: Sequence[Tensor], what: str) -> None:
        """Check that `tensors` are the same in all processes, bit by bit.

        Raises RanksDiffer, one sentence, if they are not.
        """
        if self.count == 1:
            return
        digest = torch.stack([digest_of(tensor) for tensor in tensors])
        found = [torch.empty_like(digest) for _ in range(self.count)]
        dist.all_gather(found, digest)
        others = [rank for rank, other in enumerate(found) if not torch.equal(other, found[0])]
        if others:
            raise RanksDiffer(
                f"{what} of process {others[0]} are not those of process 0: processes must run the same code."
            )


class RanksDiffer(RuntimeError):
    """Disagreement of processes that have to agree. The message is one sentence."""


ALONE = Ranks()


def digest_of(tensor: Tensor) -> Tensor:
    """A sum [] int64 of the bits of a float32 tensor [...], each word times an odd number of its own, modulo 2^64."""
    words = tensor.detach().contiguous().view(torch.int32).flatten().to(torch.int64)
    return (words * (2 * torch.arange(len(words), device=words.device) + 1)).sum()


def launched() -> Ranks:
    """Return this process's place among those that torchrun has started."""
    if not dist.is_torchelastic_launched():
        return ALONE
    return Ranks(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))


@contextmanager
def meeting(ranks: Ranks, device: torch.device) -> Iterator[None]:
    """Connect the processes for the block, each with its own `device`."""
    if ranks.count == 1:
        yield
        return
    dist.init_process_group(collectives(device), device_id=None if device.index is None else device)
    try:
        yield
    finally:
        dist.destroy_process_group()
