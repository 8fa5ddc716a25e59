"""Check the CUDA source as NVRTC gets it, and that nothing of it is touched where there is no GPU."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from pathlib import Path

import pytest
import shim
from shim.build import HERE, run_compiler

from diff_gaussian_rasterization import cuda, kernels, nvrtc, resources

CUDA_MODULES = ("nvrtc", "cubin_cache", "cuda_driver", "kernels", "resources", "cuda")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source tree of the test's own, its rasterizer.cu in cuda/."""
    (tmp_path / "cuda").mkdir()
    monkeypatch.setattr(kernels, "_SOURCE", tmp_path / "cuda" / "rasterizer.cu")
    return tmp_path


def test_the_rasterizers_headers_are_all_there() -> None:
    source, headers = kernels.sources()
    included = {name for text in (source, *headers.values()) for name in re.findall(r'#include "(.*)"', text)}
    assert included == set(headers)
    assert "math.h" in headers


def test_every_kernel_is_listed() -> None:
    compiled = [line.split()[0] for line in resources.RECORD.read_text().splitlines()[2:]]
    assert sorted(kernels.kernel_names()) == sorted(compiled)


def test_headers_are_followed_once_each_and_lose_their_folders(tree: Path) -> None:
    (tree / "cuda/rasterizer.cu").write_text('#include "../a.h"\n#  include "b.cuh"\nint x;\n')
    (tree / "cuda/b.cuh").write_text('#pragma once\n#include "../a.h"\n#include "../c.h"\n')
    (tree / "a.h").write_text('#include "c.h"\n')
    (tree / "c.h").write_text("// c\n")
    (tree / "other.h").write_text("")
    assert kernels.sources() == (
        '#include "a.h"\n#  include "b.cuh"\nint x;\n',
        {
            "a.h": '#include "c.h"\n',
            "b.cuh": '#pragma once\n#include "a.h"\n#include "c.h"\n',
            "c.h": "// c\n",
        },
    )


def test_two_headers_of_one_name_are_refused(tree: Path) -> None:
    (tree / "cuda/rasterizer.cu").write_text('#include "../a.h"\n#include "a.h"\n')
    (tree / "a.h").touch()
    (tree / "cuda/a.h").touch()
    with pytest.raises(ValueError, match="need different names"):
        kernels.sources()


def test_the_list_of_kernels_may_span_lines(tree: Path) -> None:
    (tree / "cuda/rasterizer.cu").write_text(
        "#define DGR_KERNELS(X) X(one) \\\n    X(two) \\\n    X(three)\nX(no)\n"
    )
    assert kernels.kernel_names() == ["one", "two", "three"]


def test_importing_and_rendering_without_a_gpu_load_nothing_for_it() -> None:
    script = f"""
import sys, torch
from diff_gaussian_rasterization import rasterize
rasterize(
    torch.zeros(1, 3), torch.ones(1, 3), torch.ones(1, 4), torch.ones(1), colors=torch.ones(1, 3),
    viewmats=torch.eye(4)[None], focals=torch.ones(1, 2), principals=torch.ones(1, 2), width=2, height=2,
    background=torch.zeros(3),
)
loaded = [name for name in {CUDA_MODULES} if f"diff_gaussian_rasterization.{{name}}" in sys.modules]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_frame_in_python_is_the_frame_of_the_kernels(tmp_path: Path) -> None:
    """Sizes as the device compiler sees them; it knows no offsetof, so places as the host compiler does."""
    sizes = {
        "Frame": ctypes.sizeof(cuda._Frame),
        "Record": cuda.RECORD_BYTES,
        "Status": 8 * cuda.STATUS_WORDS,
    }
    checks = [f"static_assert(sizeof(dgr::{name}) == {size});" for name, size in sizes.items()]
    checks += [
        f"static_assert(dgr::{name} == {getattr(cuda, name)});"
        for name in ("TILE", "MOMENT_STRIDE", "CAMERA_STRIDE")
    ]
    source, headers = kernels.sources()
    nvrtc.compile_image("\n".join([source, *checks]), "rasterizer.cu", headers, "compute_75", kernels.OPTIONS)
    for name, *_ in cuda._Frame._fields_:
        checks.append(
            f"static_assert(__builtin_offsetof(dgr::Frame, {name}) == {getattr(cuda._Frame, name).offset});"
        )
    lines = [f'#include "{HERE / "cuda_shim.h"}"', f'#include "{shim.RASTERIZER}"', *checks]
    (tmp_path / "checks.cpp").write_text("\n".join(lines))
    run_compiler("-std=c++17", "-fsyntax-only", str(tmp_path / "checks.cpp"))
