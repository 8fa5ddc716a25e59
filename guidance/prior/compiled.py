"""The prior's networks through torch.compile, with the plain networks wherever that fails."""

from __future__ import annotations

import logging
import os
import types
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guidance.prior.graph_sizes import next_size

CACHE = "TORCHINDUCTOR_CACHE_DIR"

logger = logging.getLogger(__name__)


class Compiled:
    """A function of tensors, compiled at its first call; from the first failure to compile it on, the plain one.

    Every input is brought to dense strides first (channels last, if it is an image), for a graph is made for
    given strides.

    Args:
        name: its name in messages.
        plain: the function.
        batched: one graph for every number of rows, which all inputs share, so that calls may be of any size; a
            single row is doubled, for torch would make a graph of its own for it. Otherwise a graph for each
            number.
        mode: torch.compile's.
    """

    def __init__(
        self, name: str, plain: Callable[..., Tensor], *, batched: bool, mode: str | None = None
    ) -> None:
        self.name, self.plain, self.batched = name, plain, batched
        self._compiled: Callable[..., Tensor] | None = torch.compile(
            plain, fullgraph=True, dynamic=None if batched else False, mode=mode
        )

    @property
    def works(self) -> bool:
        """True if nothing has failed to compile."""
        return self._compiled is not None

    def __call__(self, *inputs: Tensor) -> Tensor:
        if self._compiled is None:
            return self.plain(*inputs)
        if self.batched and len(inputs[0]) == 1:
            return self(*(torch.cat([tensor, tensor]) for tensor in inputs))[:1]
        dense = [_dense(tensor) for tensor in inputs]
        if self.batched:
            for tensor in dense:
                torch._dynamo.mark_dynamic(tensor, 0)
        try:
            return self._compiled(*dense)
        except (torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit) as error:
            self.give_up(error)
            return self.plain(*inputs)

    def warm_up(self, run: Callable[[], object]) -> bool:
        """Compile this by a call of `run`, which calls it; after any failure the plain function takes over.

        Returns: true if nothing went wrong.
        """
        try:
            with warnings.catch_warnings():
                # What the compiler notices in other people's code is for its developers.
                warnings.simplefilter("ignore")
                run()
        except torch.OutOfMemoryError:
            # Not the compiler's fault: whoever calls it in earnest takes less at a time.
            pass
        except Exception as error:  # what compilers raise is of every kind
            self.give_up(error)
        else:
            return self.works
        return False

    def give_up(self, error: Exception) -> None:
        """Take the plain function from here on, and log the cause."""
        if self._compiled is not None:
            logger.warning(
                "%s runs uncompiled, for torch cannot compile it here: %s.", self.name, _cause(error)
            )
        self._compiled = None


class Sized:
    """A function of tensors, compiled for a few numbers of rows and, where the device has them, replayed as
    CUDA graphs.

    Inputs with fewer rows are filled up to the next of these numbers; those with more go through the plain
    function. The result is a copy, for the next replay writes over a graph's own result.

    Args:
        name, plain, mode: as for `Compiled`.
        sizes: the numbers of rows, increasing.
    """

    def __init__(self, name: str, plain: Callable[..., Tensor], sizes: Sequence[int], mode: str) -> None:
        self.name, self.plain, self.sizes, self.mode = name, plain, sizes, mode
        self._compiled = self._fresh()
        self._dtype: torch.dtype | None = None

    @property
    def works(self) -> bool:
        """True if nothing has failed to compile."""
        return self._compiled.works

    def __call__(self, *inputs: Tensor) -> Tensor:
        rows, dtype = len(inputs[0]), inputs[0].dtype
        size = next_size(rows, self.sizes)
        if size is None or not self.works:
            return self.plain(*inputs)
        if self._dtype not in (None, dtype):
            # The graphs of the old precision, and the memory that they hold, are not needed any more.
            self._compiled = self._fresh()
        self._dtype = dtype
        torch.compiler.cudagraph_mark_step_begin()
        return self._compiled(*(_filled(tensor, size) for tensor in inputs))[:rows].clone()

    def warm_up(self, run: Callable[[], object]) -> bool:
        """Compile all sizes that `run` calls; see `Compiled.warm_up`."""
        return self._compiled.warm_up(run)

    def _fresh(self) -> Compiled:
        return Compiled(self.name, _with_code_of_its_own(self.plain), batched=False, mode=self.mode)


def _filled(tensor: Tensor, size: int) -> Tensor:
    """Fill `tensor` [B, ...] up to `size` rows with copies of its first one."""
    missing = size - len(tensor)
    return torch.cat([tensor, tensor[:1].expand(missing, *tensor.shape[1:])]) if missing else tensor


def _with_code_of_its_own(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Wrap the function in a code object of its own.

    torch keeps compiled code, and the count towards its limit, with the code object, which methods and closures
    share. With its own, both go when the function goes.
    """

    def same(*inputs: Tensor) -> Tensor:
        return function(*inputs)

    return types.FunctionType(same.__code__.replace(), same.__globals__, "same", None, same.__closure__)


def _dense(tensor: Tensor) -> Tensor:
    image = tensor.dim() == 4
    return tensor.contiguous(memory_format=torch.channels_last if image else torch.contiguous_format)


def _cause(error: Exception) -> str:
    """First line of the innermost cause, for torch wraps it in advice to its developers."""
    inner: Any = error
    while (cause := getattr(inner, "inner_exception", None) or inner.__cause__) is not None:
        inner = cause
    lines = [line.strip() for line in str(inner).splitlines() if line.strip()]
    return (lines[0] if lines else type(inner).__name__)[:200].rstrip(".:")


def lasting_cache() -> str:
    """Return the folder where torch keeps compiled code for later processes, the user's if one is set.

    torch's own default lies among the temporary files, which many machines lose when they start.
    """
    if CACHE not in os.environ:
        given = os.environ.get("XDG_CACHE_HOME", "")
        try:
            base = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
            folder = base / "torch" / "inductor"
            folder.mkdir(parents=True, exist_ok=True)
            os.environ[CACHE] = str(folder)
        except (OSError, RuntimeError):
            # Nowhere to write, or no home: torch's own, which it makes and enters here by itself.
            from torch._inductor.runtime.cache_dir_utils import cache_dir

            return cache_dir()
    return os.environ[CACHE]
