from __future__ import annotations

import pytest
import torch

from utils.device import resolve_device


@pytest.mark.parametrize("name", [None, "auto"])
def test_auto_takes_the_accelerator_if_there_is_one(name: str | None) -> None:
    assert (resolve_device(name).type == "cpu") == (not torch.cuda.is_available())


def test_names_of_devices_that_are_here() -> None:
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cpux", "meta"])
def test_unknown_names_get_one_sentence(name: str) -> None:
    with pytest.raises(ValueError, match=r"^device is .*[.]$") as caught:
        resolve_device(name)
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_device_that_is_missing_gets_one_sentence() -> None:
    name = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ValueError, match=name):
        resolve_device(name)
