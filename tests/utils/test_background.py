"""Jobs in a thread of their own: their order, their bound, their errors."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from utils.background import Background


def test_jobs_are_done_in_order_by_one_other_thread_which_is_waited_for() -> None:
    background, done, threads, gate = Background(most=1000), [], set(), threading.Event()
    background.submit(gate.wait)
    for number in range(50):

        def job(number: int = number) -> None:
            threads.add(threading.get_ident())
            done.append(number)

        background.submit(job, holds=10)
    assert not done, "whoever hands jobs in waits for none of them"
    gate.set()
    background.drain()
    assert done == list(range(50))
    assert len(threads) == 1
    assert threads != {threading.get_ident()}
    background.close()


def test_what_is_not_done_holds_no_more_than_it_may() -> None:
    chance, most, done = random.Random(0), 100, set()
    background, gate = Background(most), threading.Event()
    background.submit(gate.wait)
    sizes = [chance.choice([1, 30, 90, 250]) for _ in range(200)]
    # Without a bound, all of them are handed in long before.
    opens = threading.Timer(0.2, gate.set)
    opens.start()
    for number, size in enumerate(sizes):
        background.submit(lambda number=number: done.add(number), holds=size)
        waiting = [sizes[other] for other in range(number + 1) if other not in done]
        assert sum(waiting) <= most or waiting == [size]
    background.close()
    assert done == set(range(200))
    opens.join()


@pytest.mark.parametrize("call", ["submit", "drain", "close"])
def test_an_error_is_told_by_the_next_call_and_only_by_that(call: str) -> None:
    background, gate, after = Background(most=100), threading.Event(), threading.Event()

    def fail() -> None:
        gate.wait()
        raise RuntimeError("a mistake")

    background.submit(fail)
    background.submit(after.set)
    gate.set()
    # By then, it has failed.
    after.wait()
    calls = {"submit": lambda: background.submit(print), "drain": background.drain, "close": background.close}
    with pytest.raises(RuntimeError, match="a mistake"):
        calls[call]()
    background.drain()
    background.close()


@pytest.mark.parametrize("drop", [False, True])
def test_closing_waits_for_all_or_drops_what_has_not_begun(drop: bool) -> None:
    background, begun, gate, done = Background(most=100), threading.Event(), threading.Event(), []

    def first() -> None:
        begun.set()
        gate.wait(60)
        done.append(1)

    background.submit(first)
    background.submit(lambda: done.append(2))
    begun.wait()
    if drop:
        # It goes on once the second is dropped.
        background._pending[-1][0].add_done_callback(lambda _: gate.set())
    else:
        gate.set()
    background.close(drop=drop)
    assert done == ([1] if drop else [1, 2])


def test_it_computes_alone_and_leaves_the_others_as_they_were() -> None:
    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        background, found = Background(0), []
        background.submit(lambda: found.append(torch.get_num_threads()))
        background.submit(
            lambda: found.append(torch.rand(100_000).sqrt().numel() and torch.get_num_threads())
        )
        background.close()
        assert found == [1, 1]
        assert torch.get_num_threads() == 2
        with ThreadPoolExecutor(1) as other:
            assert other.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(usual)
