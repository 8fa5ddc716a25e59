"""Calls of the CUDA driver, made to a library that stands in for it and writes down what it gets."""

from __future__ import annotations

import ctypes
import logging
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from diff_gaussian_rasterization import cuda_driver, kernels, nvrtc
from diff_gaussian_rasterization.cuda_driver import Module

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="there is no CUDA for macOS")

HERE = Path(__file__).parent


class Frame(ctypes.Structure):
    """Parameter of a kernel, with padding inside."""

    _fields_ = (("values", ctypes.c_void_p), ("count", ctypes.c_int32), ("scale", ctypes.c_double))


class Driver:
    """Stand-in for the driver, and what it has seen."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        self.library.fake_reset.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t]
        self.library.fake_calls.restype = ctypes.c_char_p
        self.library.fake_frame.restype = ctypes.c_void_p
        self.reset()

    def reset(self, failing: str = "", code: int = 0) -> None:
        """Forget all calls; the function named fails from now on."""
        self.library.fake_reset(failing.encode(), code, ctypes.sizeof(Frame))

    def calls(self) -> list[str]:
        return self.library.fake_calls().decode().splitlines()

    def frame(self) -> bytes:
        """The parameter of the last launch."""
        return ctypes.string_at(self.library.fake_frame(), ctypes.sizeof(Frame))


@pytest.fixture(scope="module", params=[[], ["-DOLD_DRIVER"]], ids=["driver", "driver before 12.4"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    source = str(HERE / "fake_driver.cpp")
    subprocess.run(
        [*compiler, "-std=c++17", "-shared", "-fPIC", *request.param, source, "-o", str(path)], check=True
    )
    return path


@cache
def _compiled(
    source: str, name: str, headers: tuple[tuple[str, str], ...], architecture: str, options: tuple[str, ...]
) -> nvrtc.Compiled:
    return nvrtc.compile_image(source, name, dict(headers), architecture, options)


def compile_once(
    source: str, name: str, headers: dict[str, str], architecture: str, options: tuple[str, ...]
) -> nvrtc.Compiled:
    """Compile with NVRTC, the same source only once for all tests, for it takes seconds."""
    return _compiled(source, name, tuple(headers.items()), architecture, options)


@pytest.fixture
def driver(library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """The stand-in in the real one's place, under a torch with four sm_90 GPUs, device 0 being current."""
    monkeypatch.setattr(cuda_driver, "_LIBRARY", str(library))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(
        torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=0x7FFF00000000 + device)
    )
    monkeypatch.setattr(kernels, "nvrtc", SimpleNamespace(**vars(nvrtc) | {"compile_image": compile_once}))
    caches = (cuda_driver._driver, kernels._load, kernels._image)
    for function in caches:
        function.cache_clear()
    yield Driver(library)
    for function in caches:
        function.cache_clear()


@pytest.fixture
def is_new(library: Path) -> bool:
    return hasattr(ctypes.CDLL(str(library)), "cuFuncLoad")


def test_every_kernel_is_loaded_before_the_first_launch(driver: Driver, is_new: bool) -> None:
    Module(b"\x7fELF...", ["first", "second"], 0)
    expected = ["init 0", "module \x7fELF in 10"]
    for name in ("first", "second"):
        expected += [f"function {name} of 1", *([f"load {name}"] if is_new else [])]
    assert driver.calls() == expected
    assert driver.library.fake_depth() == 0


def test_a_launch_passes_the_struct_and_torchs_stream(driver: Driver) -> None:
    module = Module(b"\x7fELF...", ["first", "second"], 0)
    driver.reset()
    frame = Frame(0x123456789ABC, -7, 2.5)
    expected = bytes(frame)
    module.launch("second", 3_000_000, 256, frame)
    frame.count = 99
    assert driver.calls() == [
        "launch second 3000000x1x1 of 256x1x1 shared 0 stream 7fff00000000 extra 0 in 10"
    ]
    assert driver.frame() == expected
    assert driver.library.fake_depth() == 0


def test_no_blocks_are_no_launch(driver: Driver) -> None:
    module = Module(b"\x7fELF...", ["first"], 0)
    driver.reset()
    module.launch("first", 0, 256, Frame())
    assert driver.calls() == []


def test_each_device_has_its_context_and_its_stream_in_any_thread(driver: Driver) -> None:
    modules = [Module(b"\x7fELF...", ["first"], device) for device in range(4)]
    driver.reset()
    with ThreadPoolExecutor(1) as other_thread:
        for device in (3, 1):
            other_thread.submit(modules[device].launch, "first", 1, 32, Frame()).result()
    modules[2].launch("first", 1, 32, Frame())
    ends = [call.split("stream ")[1] for call in driver.calls()]
    assert ends == [f"7fff0000000{device} extra 0 in {10 + device}" for device in (3, 1, 2)]


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        ("cuInit", "start the driver"),
        ("cuDeviceGet", "find device 2"),
        ("cuDevicePrimaryCtxRetain", "open device 2"),
        ("cuCtxPushCurrent_v2", "use the device's context"),
        ("cuModuleLoadData", "load the rasterizer's kernels"),
        ("cuModuleGetFunction", "load the kernel first"),
        ("cuFuncLoad", "load the kernel first"),
        ("cuLaunchKernel", "launch the kernel first with 5 blocks of 64 threads"),
    ],
)
def test_every_error_is_raised_in_the_drivers_words(
    driver: Driver, is_new: bool, function: str, sentence: str
) -> None:
    if function == "cuFuncLoad" and not is_new:
        return
    driver.reset(function, 209)
    with pytest.raises(RuntimeError) as raised:
        Module(b"\x7fELF...", ["first"], 2).launch("first", 5, 64, Frame())
    assert str(raised.value) == (
        f"CUDA could not {sentence}: CUDA_ERROR_NO_BINARY_FOR_GPU 209, "
        "no kernel image is available for execution on the device."
    )
    assert driver.library.fake_depth() == 0


def test_an_error_that_the_driver_has_no_words_for(driver: Driver) -> None:
    driver.reset("cuInit", 12345)
    with pytest.raises(RuntimeError, match="CUDA could not start the driver: error 12345, unknown"):
        Module(b"\x7fELF...", ["first"], 0)


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("cache_folder")
def test_the_rasterizers_kernels_are_compiled_loaded_and_launched(
    driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    names = kernels.kernel_names()
    with caplog.at_level(logging.INFO, "diff_gaussian_rasterization"):
        loaded = kernels.load_kernels(torch.device("cuda"))
    assert "Compiling the CUDA kernels for sm_90" in caplog.text
    assert "module \x7fELF in 10" in driver.calls()
    assert [call for call in driver.calls() if call.startswith("function")] == [
        f"function {name} of 1" for name in names
    ]
    driver.reset()
    loaded.launch(names[-1], 1, 32, Frame())
    assert len(driver.calls()) == 1


def test_kernels_are_loaded_once_per_device_and_compiled_once(
    driver: Driver, cache_folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(*arguments: Any) -> nvrtc.Compiled:
        time.sleep(0.2)
        return compile_once(*arguments)

    monkeypatch.setattr(kernels.nvrtc, "compile_image", slowly)
    devices = [torch.device("cuda"), torch.device("cuda:0"), torch.device("cuda:1")] * 4
    with caplog.at_level(logging.INFO, "diff_gaussian_rasterization"), ThreadPoolExecutor(8) as pool:
        first, same, other, *rest = pool.map(kernels.load_kernels, devices)
    assert first is same
    assert first is not other
    assert rest == [first, same, other] * 3
    assert sum(call.startswith("module") for call in driver.calls()) == 2
    assert caplog.text.count("Compiling") == 1
    assert [path.parent.name for path in cache_folder.rglob("*") if path.is_file()] == ["sm_90"]


@pytest.mark.usefixtures("cache_folder")
def test_another_process_finds_the_compiled_kernels(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels.load_kernels(torch.device("cuda", 0))
    kernels._load.cache_clear()
    kernels._image.cache_clear()
    monkeypatch.setattr(kernels.nvrtc, "compile_image", None)
    driver.reset()
    kernels.load_kernels(torch.device("cuda", 0))
    assert "module \x7fELF in 10" in driver.calls()


@pytest.mark.usefixtures("driver", "cache_folder")
def test_a_graphs_capture_cannot_load_kernels_but_can_use_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match=r"not loaded yet: rasterize once before the graph's capture\.$"):
        kernels.load_kernels(torch.device("cuda", 0))
    with monkeypatch.context() as outside:
        outside.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
        loaded = kernels.load_kernels(torch.device("cuda", 0))
    assert kernels.load_kernels(torch.device("cuda", 0)) is loaded


@pytest.mark.thorough
@pytest.mark.usefixtures("cache_folder")
def test_a_gpu_newer_than_nvrtc_gets_ptx(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (99, 0))
    newest = kernels.nvrtc.supported_architectures()[-1]
    assert kernels.architecture(torch.device("cuda", 0)) == f"compute_{newest}"
    kernels.load_kernels(torch.device("cuda", 0))
    assert any(call.startswith("module //") for call in driver.calls())


def test_between_two_architectures_ptx_of_the_older(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.nvrtc, "supported_architectures", lambda: [75, 80, 90, 120])
    for capability, expected in (((8, 0), "sm_80"), ((8, 9), "compute_80"), ((12, 1), "compute_120")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, value=capability: value)
        assert kernels.architecture(torch.device("cuda", 0)) == expected


def test_a_gpu_older_than_nvrtc_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.nvrtc, "supported_architectures", lambda: [75, 80])
    monkeypatch.setattr(kernels.nvrtc, "version", lambda: (13, 0))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    with pytest.raises(
        RuntimeError, match=r"^cuda:0 has compute capability 6\.1, NVRTC 13\.0 compiles for 7\.5 and"
    ):
        kernels.architecture(torch.device("cuda", 0))
