"""Check what debug=True writes when something goes wrong, and its replay."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diff_gaussian_rasterization import (
    GaussianRasterizationSettings,
    GaussianRasterizer,
    batched,
    cpu,
    debug,
    replay,
)

N, WIDTH, HEIGHT = 60, 40, 30


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no dump written yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(debug, "_warned", set())
    return tmp_path


@pytest.fixture
def gaussians(tools: Any) -> dict[str, Tensor]:
    scene = tools.scene(N, degree=None)
    names = {"means": "means3D", "colors": "colors_precomp"}
    return {names.get(name, name): tensor for name, tensor in scene.gaussians.items()}


@pytest.fixture
def break_backend(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    def use(backend: Callable[..., Any]) -> None:
        monkeypatch.setitem(batched.BACKENDS, "cpu", backend)

    return use


def _settings(**more: Any) -> GaussianRasterizationSettings:
    view = torch.eye(4)
    view[3, 2] = 3  # transposed
    projection = torch.diag(torch.tensor([2.0, 2.0, 1.0, 0.0]))
    projection[2, 3], projection[3, 2] = 1, -0.01
    return GaussianRasterizationSettings(
        HEIGHT,
        WIDTH,
        0.5,
        0.5,
        torch.rand(3),
        1.0,
        view,
        view @ projection,
        0,
        torch.zeros(3),
        False,
        **{"debug": True, **more},
    )


def _step(gaussians: dict[str, Tensor], weight: float = 1.0, **settings: Any) -> list[Tensor]:
    """Images, then gradients."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in gaussians.items()}
    leaves["means2D"] = torch.zeros(N, 3, requires_grad=True)
    torch.manual_seed(0)
    color, radii, depth_alpha = GaussianRasterizer(_settings(**settings))(**leaves)
    (weight * color.square().sum()).backward()
    return [color, radii, depth_alpha, *(leaf.grad for leaf in leaves.values())]


class _Backward(torch.autograd.Function):
    """Identity of an image; its backward is the one given."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, backward: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.act = backward
        return image.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.act(gradient), None


def _with_backward(act: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    def backend(*arguments: Any) -> Any:
        rgb, *others = cpu.rasterize(*arguments)
        return (_Backward.apply(rgb, act), *others)

    return backend


def _raise(*_: Any) -> Any:
    raise RuntimeError("the kernel failed")


def _raised(gaussians: dict[str, Tensor]) -> str:
    """Take a step that _raise ends, unchanged; return the note beside it, before Python 3.11 a warning."""
    with warnings.catch_warnings(record=True) as caught, pytest.raises(RuntimeError) as error:
        _step(gaussians)
    assert error.value.args == ("the kernel failed",)
    return "\n".join([*getattr(error.value, "__notes__", []), *(str(each.message) for each in caught)])


def _content(folder: Path, name: str) -> dict[str, Any]:
    assert [path.name for path in folder.iterdir()] == [name]
    return torch.load(folder / name, weights_only=True)


def test_changes_no_result_and_writes_nothing_while_all_is_well(
    folder: Path, gaussians: dict[str, Tensor]
) -> None:
    for quiet, watched in zip(_step(gaussians, debug=False), _step(gaussians)):
        assert torch.equal(quiet, watched)
    with torch.no_grad():
        leaf = gaussians["means3D"].requires_grad_()
        color, *_ = GaussianRasterizer(_settings())(means2D=leaf, **gaussians)
    assert not color.requires_grad
    assert not list(folder.iterdir())


def test_a_graph_can_be_walked_twice(gaussians: dict[str, Tensor]) -> None:
    means = gaussians["means3D"].requires_grad_()
    color, *_ = GaussianRasterizer(_settings())(means2D=torch.zeros(N, 3), **gaussians)
    first = torch.autograd.grad(color.sum(), means, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(color.sum(), means)[0])


def test_a_forward_that_raises(folder: Path, gaussians: dict[str, Tensor], break_backend: Any) -> None:
    """The error stays what it was; the file holds the inputs."""
    break_backend(_raise)
    said = _raised(gaussians)
    content = _content(folder, "snapshot_fw.dump")
    assert f"replay {folder / 'snapshot_fw.dump'}" in said
    assert "the kernel failed" in content["reason"]
    assert torch.equal(content["gaussians"]["means"], gaussians["means3D"])
    assert content["gaussians"]["shs"] is None
    assert (content["views"]["width"], content["views"]["height"]) == (WIDTH, HEIGHT)
    assert content["versions"]["torch"] == torch.__version__


def test_a_backward_that_raises(folder: Path, gaussians: dict[str, Tensor], break_backend: Any) -> None:
    """The file holds the gradients of the images as well, and which were missing."""
    break_backend(_with_backward(_raise))
    said = _raised(gaussians)
    content = _content(folder, "snapshot_bw.dump")
    assert f"replay {folder / 'snapshot_bw.dump'}" in said
    rgb, depth, alpha = content["upstream"]
    break_backend(cpu.rasterize)
    assert torch.allclose(rgb[0], 2 * _step(gaussians, debug=False)[0])
    assert depth is None
    assert alpha is None


def test_nonfinite_parameters_are_named(folder: Path, gaussians: dict[str, Tensor]) -> None:
    """Warnings name them each time, and the first one's inputs are kept."""
    gaussians["scales"][[3, 17]] = math.nan
    with pytest.warns(UserWarning, match=r"2 Gaussians .*: 3, 17\. Its inputs are in .*snapshot_fw\.dump"):
        watched = _step(gaussians)
    assert torch.equal(_step(gaussians, debug=False)[0], watched[0])
    assert _content(folder, "snapshot_fw.dump")["gaussians"]["scales"][17].isnan().all()
    (folder / "snapshot_fw.dump").unlink()
    with pytest.warns(UserWarning, match=r": 3, 17\.$"):
        _step(gaussians)
    assert not list(folder.iterdir())


def test_nonfinite_gradients_of_finite_ones(
    folder: Path, gaussians: dict[str, Tensor], break_backend: Any
) -> None:
    break_backend(_with_backward(lambda gradient: gradient / 0))
    with pytest.warns(UserWarning, match=r"non-finite gradients of means2d, means, .*snapshot_bw\.dump"):
        _step(gaussians)
    assert "non-finite" in _content(folder, "snapshot_bw.dump")["reason"]


@pytest.mark.filterwarnings("error")
def test_a_loss_that_is_not_finite_is_not_the_rasterizers_fault(
    folder: Path, gaussians: dict[str, Tensor]
) -> None:
    _step(gaussians, weight=math.inf)
    assert not list(folder.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_hides_nothing(folder: Path, gaussians: dict[str, Tensor], break_backend: Any) -> None:
    break_backend(_raise)
    (folder / f"snapshot_fw.dump.{os.getpid()}").symlink_to("/dev/full")
    said = _raised(gaussians)
    assert "could not be written to snapshot_fw.dump: [Errno 28]" in said
    assert not list(folder.iterdir())


def test_a_working_directory_that_is_gone_hides_nothing(
    folder: Path, gaussians: dict[str, Tensor], break_backend: Any
) -> None:
    break_backend(_raise)
    folder.rmdir()
    said = _raised(gaussians)
    assert "could not be written" in said


def test_a_dump_is_no_larger_than_its_inputs(
    folder: Path, gaussians: dict[str, Tensor], break_backend: Any
) -> None:
    """Views of something larger are saved without the rest."""
    break_backend(_raise)
    sliced = {name: tensor.repeat(1000, 1)[:N] for name, tensor in gaussians.items()}
    _raised(sliced)
    size = sum(tensor.numel() * tensor.element_size() for tensor in gaussians.values())
    assert (folder / "snapshot_fw.dump").stat().st_size < size + 10_000


@pytest.fixture
def dump(folder: Path, gaussians: dict[str, Tensor], break_backend: Any) -> Path:
    """Dump of a backward that raised, in a rasterizer that has been repaired since."""
    break_backend(_with_backward(_raise))
    _raised(gaussians)
    break_backend(cpu.rasterize)
    return folder / "snapshot_bw.dump"


def test_replay_compares_every_output_and_gradient(dump: Path) -> None:
    command = [sys.executable, "-m", "diff_gaussian_rasterization.replay", str(dump)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "the kernel failed" in done.stdout
    lines = {line[:26].strip(): line[26:].split() for line in done.stdout.splitlines()}
    names = ["means2d", "means", "opacities", "scales", "rotations", "colors", "backgrounds"]
    for name in ("rgb", "depth", "alpha", "radii", *(f"gradient of {name}" for name in names)):
        assert float(lines[name][1]) < 1e-4, name


def test_replay_repeats_the_error(dump: Path, break_backend: Any, capsys: pytest.CaptureFixture[str]) -> None:
    break_backend(_with_backward(_raise))
    assert replay.main([str(dump)]) == 1
    assert "cpu failed:" in capsys.readouterr().out


def test_replay_tells_a_wrong_result(dump: Path, break_backend: Any) -> None:
    break_backend(_with_backward(lambda gradient: 1.1 * gradient))
    assert replay.main([str(dump)]) == 1


def test_replay_does_without_the_twin_where_that_is_too_large(
    dump: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(replay, "MOST_PAIRS", 0)
    assert replay.main([str(dump)]) == 0
    assert "against cpu" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"no dump", None])
def test_replay_refuses_what_is_no_dump(
    content: bytes | None, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "other"
    torch.save({"format": 0}, path) if content is None else path.write_bytes(content)
    with pytest.raises(SystemExit):
        replay.main([str(path)])
    assert "is not a dump" in capsys.readouterr().err
