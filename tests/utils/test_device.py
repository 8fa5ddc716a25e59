from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from utils import device
from utils.device import CUBLAS_WORKSPACE, HOST, VISIBLE, accelerators, resolve_device, see_only, tune


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


PEAKS = """
import os, subprocess, sys
import torch
from utils.device import peak_memory

def peak():
    return peak_memory(torch.device("cpu"))

if len(sys.argv) > 1:
    print(peak())
    sys.exit()
before = peak()
block = bytearray(os.urandom(1)) * (300 * 10**6)
full = peak()
child = subprocess.run([sys.executable, __file__, "child"], capture_output=True, text=True, check=True).stdout
del block
print(before, full, peak(), child)
"""


def test_the_peak_is_that_of_the_process_itself_and_does_not_sink(tmp_path: Path) -> None:
    # In a process of its own, which has not held more before.
    script = tmp_path / "peaks.py"
    script.write_text(PEAKS)
    surroundings = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True, env=surroundings
    )
    before, full, after, of_child = map(float, done.stdout.split())
    assert full > before + 0.25
    # The system counts pages in batches, a few hundred kilobytes at a time.
    assert after > full - 0.01
    # Started from a process of that size, it holds torch and no more.
    assert 0.05 < of_child < full


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


def settings() -> tuple[object, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        torch.get_float32_matmul_precision(),
    )


def test_an_accelerator_is_tuned_for_speed_or_for_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run sets back what an earlier one has set; an operation without a deterministic version warns and goes on."""
    plain = (False, False, False, True, "highest")
    assert settings() == plain
    monkeypatch.setenv(CUBLAS_WORKSPACE, "")
    monkeypatch.delenv(CUBLAS_WORKSPACE)
    tune(HOST, deterministic=True)
    assert settings() == plain, "the host gives the same bytes anyway"
    assert CUBLAS_WORKSPACE not in os.environ
    torch.set_float32_matmul_precision("high")
    try:
        with monkeypatch.context() as patch:
            patch.setattr(device, "is_accelerator", lambda device: True)
            tune(HOST)
            assert settings() == (False, False, True, True, "highest")
            tune(HOST, deterministic=True)
            assert settings() == (True, True, False, False, "highest")
            assert os.environ[CUBLAS_WORKSPACE] == ":4096:8"
            with pytest.warns(UserWarning, match="put_ does not have a deterministic implementation"):
                torch.zeros(2).put_(torch.tensor([1]), torch.ones(1))
            tune(HOST)
            assert settings() == (False, False, True, True, "highest")
    finally:
        tune(HOST)
    assert settings() == plain
