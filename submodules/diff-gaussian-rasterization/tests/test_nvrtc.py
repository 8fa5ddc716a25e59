"""Compile at run time: what comes out, what is reported when it fails, and which NVRTC is taken."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from diff_gaussian_rasterization import nvrtc

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="there is no CUDA for macOS")

SOURCE = '#include "scale.h"\nextern "C" __global__ void scale(float* x) { x[threadIdx.x] *= SCALE; }\n'


@pytest.fixture
def unloaded() -> Iterator[None]:
    """Look for NVRTC anew inside the test and after it."""
    nvrtc._library.cache_clear()
    yield
    nvrtc._library.cache_clear()


def test_a_cubin_for_the_architecture_with_headers_from_memory() -> None:
    image = nvrtc.compile_image(SOURCE, "scale.cu", {"scale.h": "#define SCALE 2.0f"}, "sm_90").image
    kind, machine = struct.unpack_from("<HH", image, 16)
    assert (image[:4], kind, machine) == (b"\x7fELF", 2, 190)  # an executable for EM_CUDA
    assert b".text.scale" in image


def test_ptx_for_a_virtual_architecture() -> None:
    image = nvrtc.compile_image(SOURCE, "scale.cu", {"scale.h": "#define SCALE 2.0f"}, "compute_90").image
    assert b".target sm_90" in image
    assert b".entry scale" in image
    assert image.endswith(b"\0")


def test_the_log_tells_registers() -> None:
    compiled = nvrtc.compile_image(
        SOURCE, "scale.cu", {"scale.h": "#define SCALE 2.0f"}, "sm_80", ["--ptxas-options=-v"]
    )
    assert "Compiling entry function 'scale' for 'sm_80'" in compiled.log
    assert "\0" not in compiled.log


def test_a_mistake_is_reported_with_its_file_and_line() -> None:
    with pytest.raises(
        nvrtc.NvrtcError, match=r"could not compile scale\.cu for sm_90:\nscale\.h\(2\): error"
    ):
        nvrtc.compile_image(SOURCE, "scale.cu", {"scale.h": "#define SCALE 2.0f\nfloat ]"}, "sm_90")


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(nvrtc.NvrtcError, match=r"for sm_12:\n.*gpu-architecture"):
        nvrtc.compile_image(SOURCE, "scale.cu", {"scale.h": ""}, "sm_12")


def test_the_architectures_that_torch_supports_are_known() -> None:
    known = nvrtc.supported_architectures()
    assert known == sorted(known)
    assert {75, 80, 86, 89, 90} <= set(known)


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize(
    ("cuda", "package"), [("12.8", "nvidia-cuda-nvrtc-cu12"), ("14.1", '"nvidia-cuda-nvrtc==14.*"')]
)
def test_a_missing_nvrtc_names_the_package(cuda: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(nvrtc, "_candidates", lambda major: [Path(f"/nowhere/libnvrtc.so.{major}")])
    with pytest.raises(nvrtc.NvrtcError) as raised:
        nvrtc.version()
    assert str(raised.value) == (
        f"NVRTC of CUDA {cuda[:2]} is not installed: pip install {package} brings it."
    )


@pytest.mark.usefixtures("unloaded")
def test_torchs_cuda_major_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def candidates(major: int) -> list[Path]:
        asked.append(major)
        return []

    monkeypatch.setattr(nvrtc, "_candidates", candidates)
    for cuda, majors in (("12.6", [12]), ("13.0", [13]), (None, list(nvrtc._MAJORS))):
        asked.clear()
        monkeypatch.setattr(torch.version, "cuda", cuda)
        with pytest.raises(nvrtc.NvrtcError):
            nvrtc.version()
        assert asked == majors


def test_the_wheels_folders_are_searched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = tmp_path / "nvidia"
    for file in ("cu13/lib/libnvrtc.so.13", "cuda_nvrtc/lib/libnvrtc.so.12"):
        (root / file).parent.mkdir(parents=True)
        (root / file).touch()
    spec: Any = type("Spec", (), {"submodule_search_locations": [str(root)]})
    monkeypatch.setattr(nvrtc.importlib.util, "find_spec", lambda name: spec)
    for major, file in ((13, "cu13/lib/libnvrtc.so.13"), (12, "cuda_nvrtc/lib/libnvrtc.so.12")):
        assert root / file in [path for path in nvrtc._candidates(major) if path.exists()]


def test_one_that_is_loaded_already_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    major, _ = nvrtc.version()
    monkeypatch.setattr(nvrtc.importlib.util, "find_spec", lambda name: None)
    first = next(iter(nvrtc._candidates(major)))
    assert first.is_absolute()
    assert first.is_file()
    assert first.name.startswith(f"libnvrtc.so.{major}")
