from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from utils.device import VISIBLE, accelerators, peak_memory, resolve_device, see_only


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


def test_the_peak_is_that_of_the_process_itself_and_does_not_sink() -> None:
    before = peak_memory(torch.device("cpu"))
    block = bytearray(os.urandom(1)) * (300 * 10**6)
    full = peak_memory(torch.device("cpu"))
    assert full > before
    code = "import torch; from utils.device import peak_memory; print(peak_memory(torch.device('cpu')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    del block
    # The system counts pages in batches, a few hundred kilobytes at a time.
    assert peak_memory(torch.device("cpu")) > full - 0.01
    # Started from a process of that size, it holds torch and no more.
    assert 0.05 < float(done.stdout) < full


def test_the_accelerators_that_a_process_may_see_have_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv(VISIBLE, raising=False)
    assert accelerators() == ["0", "1"]
    monkeypatch.setenv(VISIBLE, "3,GPU-5")
    assert accelerators() == ["3", "GPU-5"]
    see_only(accelerators()[1])
    assert os.environ[VISIBLE] == "GPU-5"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert accelerators() == []
