"""Test the shim that runs CUDA kernels as fibers: right ones are right in every order, the faults of wrong
ones show.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from pathlib import Path

import pytest
import torch
from shim import VARIANT, ShimKernels, run_sanitized
from shim.build import is_clang
from torch import Tensor

KERNELS = Path(__file__).parent / "shim" / "kernels"
SEEDS = range(8)
EACH_SEED = [0, 1, *(pytest.param(seed, marks=pytest.mark.thorough) for seed in SEEDS[2:])]


class RightFrame(ctypes.Structure):
    _fields_ = [
        ("values", ctypes.c_void_p),
        ("sums", ctypes.c_void_p),
        ("numbers", ctypes.c_void_p),
        ("count", ctypes.c_int),
    ]


class WrongFrame(ctypes.Structure):
    _fields_ = [("values", ctypes.c_void_p), ("index", ctypes.c_int)]


def launch(
    name: str, values: Tensor, blocks: int, threads: int, seed: int, numbers: int = 0, variant: str = VARIANT
) -> tuple[Tensor, Tensor]:
    """Run a kernel of right.cu; returns its sums and so many numbers."""
    sums, integers = torch.zeros_like(values), torch.zeros(numbers, dtype=torch.int32)
    frame = RightFrame(values.data_ptr(), sums.data_ptr(), integers.data_ptr(), len(values))
    ShimKernels(seed, KERNELS / "right.cu", variant).launch(name, blocks, threads, frame)
    return sums, integers


def launch_wrong(name: str, seed: int = 0, index: int = 0, blocks: int = 1, variant: str = VARIANT) -> Tensor:
    """Run a kernel of wrong.cu in blocks of 64 threads; returns what has become of the values 0 to 63."""
    values = torch.arange(64.0)
    frame = WrongFrame(values.data_ptr(), index)
    ShimKernels(seed, KERNELS / "wrong.cu", variant).launch(name, blocks, 64, frame)
    return values


@pytest.fixture
def values() -> Tensor:
    return torch.randn(1000, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["sanitized"] if VARIANT == "sanitized" else ["plain", "ucontext", "races"])
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


def padded(values: Tensor, multiple: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, -len(values) % multiple)).view(-1, multiple)


@pytest.mark.parametrize("seed", EACH_SEED)
def test_block_sum(values: Tensor, seed: int, variant: str) -> None:
    sums, _ = launch("block_sum", values, 4, 256, seed, variant=variant)
    torch.testing.assert_close(sums[:4], padded(values, 256).sum(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", EACH_SEED)
def test_warp_scan(values: Tensor, seed: int, variant: str) -> None:
    sums, _ = launch("warp_scan", values[:960], 5, 192, seed, variant=variant)
    torch.testing.assert_close(sums, values[:960].view(-1, 32).cumsum(1).flatten(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", EACH_SEED)
def test_divergent_lanes_meet_apart(values: Tensor, seed: int, variant: str) -> None:
    _, ranks = launch("divergent_ranks", values[:960], 3, 320, seed, 960, variant=variant)
    positive = values[:960].view(-1, 32) > 0
    expected = torch.where(positive, positive.cumsum(1), (~positive).cumsum(1)) - 1
    assert torch.equal(ranks.view(-1, 32), expected.int())


@pytest.mark.parametrize("seed", EACH_SEED)
def test_histogram_by_atomics(values: Tensor, seed: int, variant: str) -> None:
    _, bins = launch("histogram", values, 4, 256, seed, 16, variant=variant)
    expected = torch.bincount((values * 16).long().clamp(0, 15), minlength=16)
    assert torch.equal(bins, expected.int())


@pytest.mark.parametrize("seed", EACH_SEED)
def test_lanes_share_memory_between_syncwarps(values: Tensor, seed: int, variant: str) -> None:
    _, signs = launch("warp_reversal", values[:896], 7, 128, seed, 896, variant=variant)
    assert torch.equal(signs.view(-1, 32), values[:896].sign().int().view(-1, 32).flip(1))


@pytest.mark.parametrize("seed", EACH_SEED)
def test_last_block_sees_what_the_others_left(values: Tensor, seed: int, variant: str) -> None:
    sums, _ = launch("sum_by_last_block", values[:960], 10, 96, seed, 1, variant=variant)
    torch.testing.assert_close(sums[0], values[:960].sum(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sign", [-1, 0, 1])
def test_barriers_count_the_votes_of_threads_that_are_left(values: Tensor, sign: int) -> None:
    ballot = values[:96] if sign == 0 else torch.full((96,), float(sign))
    _, numbers = launch("votes", ballot, 1, 96, 3, 3 * 96)
    numbers, yes = numbers.view(48, 2, 3), ballot[::2] > 0
    assert (numbers[:, 1] == -1).all()
    expected = torch.tensor([yes.sum(), yes.any(), yes.all()], dtype=torch.int32)
    assert torch.equal(numbers[:, 0], expected.expand(48, 3))


def test_shuffles_within_a_width(values: Tensor) -> None:
    _, heard = launch("shuffles", values, 1, 32, 5, 5 * 32)
    lane = torch.arange(32)
    within = lane % 8
    groups = (lane[:, None] // 5 == lane // 5).long() << lane
    expected = [
        lane - within + 3,
        torch.where(within >= 3, lane - 3, lane),
        torch.where(within < 5, lane + 3, lane),
        lane ^ 3,
        groups.sum(1),
    ]
    assert torch.equal(heard.view(32, 5), torch.stack(expected, 1).int())


def test_seed_permutes_blocks_and_threads_anew_at_every_barrier(values: Tensor) -> None:
    orders = []
    for seed in range(6):
        _, numbers = launch("order", values, 5, 96, seed, 1 + 2 * 5 * 96)
        block_order = numbers[1:].view(2, 5, 96)[0].min(1).values.argsort()
        orders.append(tuple(block_order.tolist()))
        for block in range(5):
            first, second = numbers[1:].view(2, 5, 96)[:, block].long().argsort(1)
            assert torch.equal(first.sort().values, torch.arange(96))
            natural = torch.equal(first, torch.arange(96)) or torch.equal(second, torch.arange(96))
            assert natural == (seed == 0)
            assert torch.equal(first, second) == (seed == 0)
    assert orders[0] == (0, 1, 2, 3, 4)
    assert len(set(orders)) > 3


def test_same_seed_gives_the_same_order(values: Tensor) -> None:
    runs = [launch("order", values, 5, 96, 7, 1 + 2 * 5 * 96)[1] for _ in range(2)]
    assert torch.equal(*runs)


@pytest.mark.parametrize("seed", EACH_SEED)
def test_missing_barrier_reads_nan(seed: int) -> None:
    assert launch_wrong("unsynchronised_reversal", seed).isnan().any()


def test_missing_barrier_in_a_loop_shows_in_every_order_but_the_natural() -> None:
    expected = torch.arange(64.0).roll(3)
    wrong = [not torch.equal(launch_wrong("unsynchronised_loop", seed, 3), expected) for seed in SEEDS]
    assert wrong[1:] == [True] * 7


def test_other_threads_run_between_two_atomics() -> None:
    counts = [launch_wrong("checks_then_acts", seed)[0].item() for seed in SEEDS]
    assert counts[0] == 1
    assert max(counts[1:]) > 1


def test_shared_memory_holds_nan_until_written() -> None:
    values = launch_wrong("unwritten_shared")
    assert values.isnan().nonzero().tolist() == [[5]]


RACES = {
    "unsynchronised_reversal": "shared memory",
    "unsynchronised_loop": "shared memory",
    "warp_without_syncwarp": "shared memory",
    "syncwarp_of_others": "shared memory",
    "reads_beside_atomic": "memory",
}
needs_no_sanitizer = pytest.mark.skipif(VARIANT == "sanitized", reason="the other variants run outside")


@needs_no_sanitizer
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", RACES)
def test_race_is_found_in_any_order(name: str, seed: int) -> None:
    pattern = (
        rf"^Kernel '{name}', block 0, thread (\d+) (reads|writes) {RACES[name]} at \(wrong.cu:(\d+|\?)\) that thread "
        r"(\d+)( of block 0)? (read|wrote) at \(wrong.cu:(\d+|\?)\), and nothing orders the two\.$"
    )
    with pytest.raises(RuntimeError, match=pattern) as failure:
        launch_wrong(name, seed, 2, variant="races")
    thread, doing, line, other, _, done, other_line = re.match(pattern, str(failure.value)).groups()
    assert thread != other
    assert "writes" in doing or "wrote" in done
    assert (
        "?" in (line, other_line) or 1 <= abs(int(line) - int(other_line)) <= 3
    )  # clang does not always know


@needs_no_sanitizer
@pytest.mark.parametrize("seed", range(4))
def test_race_between_blocks_is_found(seed: int) -> None:
    launch_wrong("adds_without_atomic", seed, blocks=1, variant="races")
    pattern = r"thread 0 (reads|writes) memory at \(wrong.cu:.*\) that thread 0 of block [01] wrote at \(wrong.cu:.*\)"
    with pytest.raises(RuntimeError, match=pattern):
        launch_wrong("adds_without_atomic", seed, blocks=2, variant="races")


MISUSES = {
    "waits_for_exited": r"thread 3[2-9] waits at __ballot_sync \(wrong.cu:\d+\) with mask 0xffffffff for thread 40, "
    r"which has exited\.",
    "waits_for_barrier": r"thread 32 waits at __ballot_sync \(.*\) with mask 0xffffffff for thread 48, "
    r"which waits at __syncthreads \(wrong.cu:\d+\)\.",
    "different_barriers": r"thread \d+ waits at __syncthreads(_or)? \(.*\), but thread \d+ at __syncthreads(_or)? \(.*\)\.",
    "different_places": r"thread \d+ waits at __syncthreads \(.*\), but thread \d+ at __syncthreads \(.*\)\.",
    "different_operations": r"waits at __\w+ \(.*\) with mask 0xffffffff for thread \d+, which waits at __\w+ \(.*\)",
    "different_masks": r"thread \d+ waits at __any_sync \(.*\) with mask 0xffffffff for thread \d+, which waits at "
    r"__any_sync \(.*\) with mask 0xfffffff0\.",
    "not_in_mask": r"thread (0|32) calls __shfl_sync \(.*\) with mask 0xfffffffe, which does not name it\.",
    "trap": r"thread 9 stops at __trap \(wrong.cu:\d+\)\.",
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_named(name: str, seed: int) -> None:
    with pytest.raises(RuntimeError, match=rf"^Kernel '{name}', block 0, .*{MISUSES[name]}"):
        launch_wrong(name, seed)


def test_lanes_of_a_warp_that_is_not_full_do_not_exist() -> None:
    frame = WrongFrame(None, 0)
    with pytest.raises(
        RuntimeError, match=r"thread 32 waits at __syncwarp .* thread 40, which does not exist\."
    ):
        ShimKernels(0, KERNELS / "wrong.cu").launch("waits_for_nobody", 1, 40, frame)


def test_launches_after_an_error_are_right(values: Tensor) -> None:
    for _ in range(20):
        with pytest.raises(RuntimeError, match="waits"):
            launch_wrong("different_masks", 1)
    sums, _ = launch("block_sum", values, 4, 256, 1)
    torch.testing.assert_close(sums[:4], padded(values, 256).sum(1), rtol=1e-5, atol=1e-5)


def test_launch_that_cannot_be_is_refused(values: Tensor) -> None:
    shim = ShimKernels(0, KERNELS / "right.cu")
    frame = RightFrame(values.data_ptr(), values.data_ptr(), None, len(values))
    with pytest.raises(RuntimeError, match=r"^There is no kernel 'blok_sum'\.$"):
        shim.launch("blok_sum", 1, 32, frame)
    for blocks, threads in ((1, 1025), (1, 0), (0, 32)):
        with pytest.raises(
            RuntimeError, match=f"'block_sum' is launched with {blocks} blocks of {threads} threads"
        ):
            shim.launch("block_sum", blocks, threads, frame)
    with pytest.raises(RuntimeError, match="'block_sum' takes a struct of 32 bytes, WrongFrame has 16"):
        shim.launch("block_sum", 1, 32, WrongFrame(None, 0))


FAULTS = {
    "writes_past_tensor": "heap-buffer-overflow",
    "writes_past_member": "runtime error: index 64 out of bounds",
    "writes_past_shared": "global-buffer-overflow",
    "misaligned_load": "misaligned address",
    "signed_overflow": "runtime error: signed integer overflow",
    "nan_to_int": "runtime error: -?nan is outside the range of representable values",
    "flag_of_unwritten_shared": "runtime error: load of value 255, which is not a valid value for type 'bool'",
    "overflows_stack": "stack-overflow",
}


@pytest.mark.skipif(VARIANT != "sanitized", reason="run by test_under_sanitizers in a process of its own")
@pytest.mark.parametrize("name", FAULTS)
def test_sanitizers_find(name: str) -> None:
    if name == "writes_past_shared" and is_clang():
        pytest.skip("clang cannot guard the variables of a named section")
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.dup2(writing, sys.__stderr__.fileno())
        launch_wrong(name, index=64)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        report = pipe.read()
    assert os.waitpid(child, 0)[1] != 0
    assert re.search(FAULTS[name], report)
    assert is_clang() or f"in {name}" in report  # it leaves names to llvm-symbolizer, which may be missing


@pytest.mark.slow
@pytest.mark.skipif(
    VARIANT == "sanitized" or sys.platform != "linux", reason="preloads the sanitizers as Linux does"
)
def test_under_sanitizers() -> None:
    done = run_sanitized(__file__, "-m", "not slow")
    assert done.returncode == 0, done.stdout
