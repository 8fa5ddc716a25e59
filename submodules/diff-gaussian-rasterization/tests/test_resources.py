"""Check the kernels on every architecture: they compile, spill nothing, and need what the committed table holds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from diff_gaussian_rasterization import kernels, nvrtc, resources
from diff_gaussian_rasterization.resources import Usage

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="there is no CUDA for macOS")

# In turn: small; an array that is indexed at run time; more values at once than 65536 / 2048 registers hold.
SOURCE = """
extern "C" __global__ void shares(float* x) {
    __shared__ float s[1024];
    s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = s[1023 - threadIdx.x];
}
extern "C" __global__ void indexes(float* x, int n) {
    float v[64];
    for (int i = 0; i < 64; ++i) v[(i * n) & 63] = x[i];
    for (int i = 0; i < 64; ++i) x[i] = v[(i + n) & 63];
}
extern "C" __global__ void __launch_bounds__(1024, 2) spills(float* x) {
    float v[64], t = 0;
#pragma unroll
    for (int i = 0; i < 64; ++i) v[i] = x[i * threadIdx.x];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 64; ++i) t = t * v[i] + v[63 - i];
#pragma unroll
    for (int i = 0; i < 64; ++i) x[i * threadIdx.x] = t * v[i];
}
"""


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, Usage]]:
    return resources.measure(SOURCE, {}, ("sm_80", "sm_90"))


def test_registers_shared_memory_and_stack_are_read_from_the_log(
    measured: dict[str, dict[str, Usage]],
) -> None:
    for usages in measured.values():
        assert set(usages) == {"shares", "indexes", "spills"}
        assert usages["shares"].shared == 4096
        assert 4 <= usages["shares"].registers <= 32
        assert (usages["shares"].stack, usages["shares"].spilled) == (0, 0)
        assert usages["indexes"].stack >= 256
        assert usages["spills"].registers == 32
        assert usages["spills"].spilled > 0


def test_functions_that_are_not_inlined_count_with_their_kernel() -> None:
    log = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'one' for 'sm_90'
ptxas info    : Function properties for one
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 2048 bytes smem, 400 bytes cmem[0]
ptxas info    : Function properties for helper
    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Compiling entry function 'two' for 'sm_90'
ptxas info    : Function properties for two
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers
"""
    assert resources.parse(log) == {"one": Usage(40, 2048, 16, 12), "two": Usage(8, 0, 0, 0)}


def test_spills_and_stack_frames_are_faults(measured: dict[str, dict[str, Usage]]) -> None:
    faults = resources.local_memory(measured)
    assert [fault.split(" has ")[0] for fault in sorted(faults)] == [
        f"{kernel} for {architecture}"
        for kernel in ("indexes", "spills")
        for architecture in ("sm_80", "sm_90")
    ]


def test_the_command_writes_only_what_has_no_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "registers.txt"
    good, bad = {"sm_90": {"one": Usage(40, 2048, 0, 0)}}, {"sm_90": {"one": Usage(255, 0, 16, 12)}}
    monkeypatch.setattr(resources, "RECORD", record)
    monkeypatch.setattr(resources, "measure", lambda *sources: bad)
    assert resources.main(["--write"]) == 1
    assert "one for sm_90 has a stack frame of 16 bytes and spills 12" in capsys.readouterr().out
    assert not record.exists()
    monkeypatch.setattr(resources, "measure", lambda *sources: good)
    assert resources.main([]) == 1
    assert resources.main(["--write"]) == 0
    assert resources.main([]) == 0
    record.write_text(record.read_text().replace("40", "41"))
    assert resources.main([]) == 1
    assert resources.WRITE in capsys.readouterr().out


@pytest.fixture
def record() -> str:
    """The committed table, where this compiler has written it."""
    text = resources.RECORD.read_text(encoding="utf-8")
    if text.splitlines()[0] != resources.heading():
        pytest.skip(f"registers.txt comes from another compiler than NVRTC {nvrtc.version()}")
    return text


@pytest.mark.thorough
def test_the_rasterizer_on_one_architecture(record: str) -> None:
    measured = resources.measure(*kernels.sources(), ("sm_90",))
    assert not resources.local_memory(measured)
    assert set(measured["sm_90"]) == set(kernels.kernel_names())
    found, committed = (
        [line.split() for line in text.splitlines()[1:]] for text in (resources.table(measured), record)
    )
    column = committed[0].index("sm_90")
    assert found == [[row[0], row[column]] for row in committed], resources.WRITE


@pytest.mark.thorough
def test_the_rasterizer_on_all_architectures(record: str) -> None:
    measured = resources.measure(*kernels.sources())
    assert not resources.local_memory(measured)
    assert all(set(usages) == set(kernels.kernel_names()) for usages in measured.values())
    assert resources.table(measured) == record, resources.WRITE
