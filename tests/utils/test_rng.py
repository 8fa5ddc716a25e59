from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from utils.rng import NAMES, Generators, derive_seed


def draws(generators: Generators) -> dict[str, list[float]]:
    return {name: torch.rand(3, generator=generators[name]).tolist() for name in NAMES}


def test_the_same_seed_gives_the_same_draws_and_each_name_its_own() -> None:
    first, second, other = draws(Generators(7)), draws(Generators(7)), draws(Generators(8))
    assert first == second
    assert len({tuple(values) for values in [*first.values(), *other.values()]}) == 2 * len(NAMES)


def test_seeds_do_not_depend_on_the_process() -> None:
    code = "from utils.rng import derive_seed; print(derive_seed(3, 'cameras'))"
    environment = {"PYTHONHASHSEED": "12345"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert int(run.stdout) == derive_seed(3, "cameras")


def test_one_use_does_not_shift_another() -> None:
    a, b = Generators(0), Generators(0)
    torch.rand(100, generator=a["flip"])
    assert torch.equal(torch.rand(5, generator=a["cameras"]), torch.rand(5, generator=b["cameras"]))


def test_a_state_continues_where_it_was_taken() -> None:
    source = Generators(1)
    draws(source)
    state = source.state_dict()
    target = Generators(2)
    target.load_state_dict(state)
    assert draws(source) == draws(target)


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(KeyError, match=r"camera'.*cameras"):
        Generators(0)["camera"]
    with pytest.raises(ValueError, match="must hold"):
        Generators(0).load_state_dict({"cameras": Generators(0)["cameras"].get_state()})
