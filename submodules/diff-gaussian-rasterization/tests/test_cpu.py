"""Check what is particular to the CPU backend: threads, memory, graphs."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from diff_gaussian_rasterization import cpu, rasterize


def _bytes(run: Any) -> list[bytes]:
    images = [getattr(run.output, name) for name in ("rgb", "depth", "alpha", "radii", "means2d")]
    return [t.detach().numpy().tobytes() for t in (*images, *run.gradients.values())]


def test_the_same_bytes_for_any_number_of_threads(level: str, threads: Any, tools: Any) -> None:
    scene = tools.scene(700, views=3, width=150, height=140, degree=2)
    results = []
    for number in (1, 2, 3, 7):
        threads(number)
        results.append(_bytes(tools.render(scene, "cpu")))
        results[-1] += [g.numpy().tobytes() for g in tools.camera_gradients(scene, "cpu").values()]
    assert all(result == results[0] for result in results)


def test_workspaces_are_used_again_and_carry_nothing_over(tools: Any) -> None:
    small, large = (
        tools.scene(20, width=20, height=20),
        tools.scene(300, views=2, width=90, height=70, seed=4),
    )
    first = _bytes(tools.render(small, "cpu"))
    for _ in range(3):
        tools.render(large, "cpu")
        assert _bytes(tools.render(small, "cpu")) == first
    assert all(len(idle) <= cpu._Workspace.KEPT for idle in cpu._Workspace.idle.values())


def test_several_graphs_live_side_by_side(tools: Any) -> None:
    scenes = [tools.scene(100, seed=seed) for seed in range(4)]
    expected = [tools.render(scene, "cpu").gradients["means"] for scene in scenes]
    leaves = [scene.gaussians["means"].clone().requires_grad_() for scene in scenes]
    outputs = [
        rasterize(**{**scene.gaussians, "means": leaf}, **scene.cameras)
        for scene, leaf in zip(scenes, leaves)
    ]
    for out in reversed(outputs):
        rng = torch.Generator().manual_seed(99)
        images = (out.rgb, out.depth, out.alpha)
        sum((i * torch.randn(i.shape, generator=rng)).sum() for i in images).backward()
    for leaf, gradient in zip(leaves, expected):
        assert torch.equal(leaf.grad, gradient)


def test_a_graph_can_be_walked_twice(tools: Any) -> None:
    scene = tools.scene(60)
    means = scene.gaussians["means"].requires_grad_()
    out = rasterize(**scene.gaussians, **scene.cameras)
    first = torch.autograd.grad(out.rgb.sum(), means, retain_graph=True)[0]
    tools.render(tools.scene(200, seed=9), "cpu")
    assert torch.equal(torch.autograd.grad(out.rgb.sum(), means)[0], first)


def test_backward_gives_the_workspace_back_while_the_images_live_on(tools: Any) -> None:
    scene = tools.scene(60)
    means = scene.gaussians["means"].requires_grad_()
    idle = cpu._Workspace.idle.setdefault(cpu.chosen_level(), [])
    idle.clear()
    first = rasterize(**scene.gaussians, **scene.cameras)
    first.rgb.sum().backward()
    assert len(idle) == 1
    second = rasterize(**scene.gaussians, **scene.cameras)
    assert len(idle) == 0
    assert torch.autograd.grad(second.rgb.sum(), means, retain_graph=True)
    assert len(idle) == 0


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradients_under_checkpointing(reentrant: bool, tools: Any) -> None:
    scene = tools.scene(60)
    expected = tools.render(scene, "cpu").gradients["means"]

    def images(means: Tensor) -> Tensor:
        out = rasterize(**{**scene.gaussians, "means": means}, **scene.cameras)
        rng = torch.Generator().manual_seed(99)
        return sum((i * torch.randn(i.shape, generator=rng)).sum() for i in (out.rgb, out.depth, out.alpha))

    means = scene.gaussians["means"].requires_grad_()
    checkpoint(images, means, use_reentrant=reentrant).backward()
    assert torch.equal(means.grad, expected)


def test_gradients_with_saved_tensors_kept_elsewhere(tools: Any) -> None:
    scene = tools.scene(60)
    means = scene.gaussians["means"].requires_grad_()
    out = rasterize(**scene.gaussians, **scene.cameras)
    expected = torch.autograd.grad(out.rgb.sum(), means)[0]
    with torch.autograd.graph.saved_tensors_hooks(Tensor.clone, lambda kept: kept):
        out = rasterize(**scene.gaussians, **scene.cameras)
    assert torch.equal(torch.autograd.grad(out.rgb.sum(), means)[0], expected)


def test_calls_from_several_threads(tools: Any) -> None:
    scenes = [tools.scene(150, seed=seed) for seed in range(6)]
    expected = [_bytes(tools.render(scene, "cpu")) for scene in scenes]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda scene: _bytes(tools.render(scene, "cpu")), scenes)) == expected


HELPERS = """
import os, signal, sys, threading
from pathlib import Path

import torch
from diff_gaussian_rasterization import rasterize

def tasks():
    return set(map(int, os.listdir("/proc/self/task")))

def blocked(task):
    status = Path(f"/proc/self/task/{task}/status").read_text().splitlines()
    mask = int(next(line for line in status if line.startswith("SigBlk")).split()[1], 16)
    return {number for number in range(1, 32) if mask >> number - 1 & 1}

def render():
    out = rasterize(**scene)
    torch.autograd.backward(out.rgb, upstream)  # torch must take no threads, which do not survive a fork
    return out.rgb.detach().numpy().tobytes() + out.means2d.grad.numpy().tobytes()

scene = torch.load(sys.argv[1])
scene["means"].requires_grad_()
torch.set_num_threads(1)
upstream = torch.ones(2, 3, 140, 150)
expected = render()
before = tasks()
torch.set_num_threads(3)
assert render() == expected
helpers = tasks() - before
assert len(helpers) == 2, helpers
for helper in helpers:
    assert signal.SIGINT in blocked(helper) and signal.SIGSEGV not in blocked(helper)
assert all(render() == expected for _ in range(5)) and tasks() - before == helpers

def others():
    while not done:
        assert render() == expected

done = False
thread = threading.Thread(target=others)
thread.start()
for _ in range(10):  # whatever the threads are doing
    child = os.fork()
    if child == 0:
        alone = len(tasks()) == 1
        os._exit(0 if alone and render() == expected and len(tasks()) == 3 else 1)
    assert os.waitpid(child, 0)[1] == 0
done = True
thread.join()
print("well")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_helpers_live_on_leave_signals_alone_and_are_made_anew_in_a_forked_child(
    tmp_path: Path, tools: Any
) -> None:
    """In a process of its own, which also ends while they sleep."""
    scene = tools.scene(700, views=2, width=150, height=140)
    torch.save({**scene.gaussians, **scene.cameras}, tmp_path / "scene")
    assert _in_own_process(HELPERS, str(tmp_path / "scene")) == ["well"]


ONE_VIEW = """
import os

import torch
from diff_gaussian_rasterization import GaussianRasterizationSettings, GaussianRasterizer

def more():
    return len(os.listdir("/proc/self/task")) - before

n, h, w = 40_000, 190, 200
torch.set_num_threads(1)
view, projection = torch.eye(4), torch.eye(4)
view[3, 2], projection[2, 3], projection[3, 3] = 3, 1, 0
settings = GaussianRasterizationSettings(
    h, w, 0.5, 0.5, torch.zeros(3), 1.0, view, view @ projection, 0, torch.zeros(3), False
)
of_gaussians = {"means3D": 3, "means2D": 3, "opacities": 1, "colors_precomp": 3, "scales": 3, "rotations": 4}
leaves = {name: (0.01 * torch.rand(n, size)).requires_grad_() for name, size in of_gaussians.items()}
upstream = torch.ones(3, h, w), torch.ones(2, h, w)
before = len(os.listdir("/proc/self/task"))
torch.set_num_threads(3)
color, _, depth_alpha = GaussianRasterizer(settings)(**leaves)
torch.autograd.backward((color, depth_alpha), upstream)
print(more())
color * 2
print(more())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_one_view_takes_two_helpers_and_no_threads_of_torch() -> None:
    """Torch's threads would spin for milliseconds on the helpers' cores; as the last operation shows, it takes two of them."""
    assert _in_own_process(ONE_VIEW) == ["2", "4"]


def _in_own_process(script: str, *arguments: str) -> list[str]:
    """Run a script that imports this package; returns the words it prints."""
    environment = {**os.environ, "PYTHONPATH": str(Path(cpu.__file__).parents[1])}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.split()


def test_without_gradients_nothing_is_recorded(tools: Any) -> None:
    scene = tools.scene(30)
    scene.gaussians["means"].requires_grad_()
    with torch.no_grad():
        out = rasterize(**scene.gaussians, **scene.cameras)
    assert not out.rgb.requires_grad
    assert not out.means2d.requires_grad
    assert out.means2d.abs().sum() > 0


def test_strided_inputs(tools: Any) -> None:
    scene = tools.scene(50)
    plain = tools.render(scene, "cpu")
    scene.gaussians = {name: t.repeat_interleave(2, dim=0)[::2] for name, t in scene.gaussians.items()}
    scene.gaussians["shs"] = scene.gaussians["shs"].mT.contiguous().mT
    assert not scene.gaussians["shs"].is_contiguous()
    assert _bytes(tools.render(scene, "cpu"))[0] == _bytes(plain)[0]


def test_every_instruction_set_gives_the_same_image_to_rounding(level: str, tools: Any) -> None:
    scene = tools.scene(200, width=70, height=50)
    image = tools.render(scene, "cpu").output.rgb
    assert (image - tools.render(scene, "reference").output.rgb).abs().median() < 1e-6


FORCED = """
import sys
import torch
from diff_gaussian_rasterization import cpu, rasterize

images = vars(rasterize(**torch.load(sys.argv[1])))
torch.save({name: image.detach() for name, image in images.items()}, sys.argv[2])
print(*cpu._Workspace.idle)
"""


def test_the_environment_forces_an_instruction_set(level: str, tmp_path: Path, tools: Any) -> None:
    """A process of its own, which the fixture's variable reaches, loads no other build and gives the same bytes."""
    scene, given, saved = (
        tools.scene(200, views=2, width=70, height=50),
        tmp_path / "given",
        tmp_path / "saved",
    )
    torch.save({**scene.gaussians, **scene.cameras}, given)
    assert _in_own_process(FORCED, str(given), str(saved)) == [level]
    there = torch.load(saved)
    for name, image in vars(rasterize(**scene.gaussians, **scene.cameras)).items():
        assert torch.equal(there[name], image), name


def test_without_a_choice_the_best_instruction_set_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cpu.levels()[0] == "portable"
    monkeypatch.delenv(cpu.CHOICE, raising=False)
    assert cpu.chosen_level() == cpu.levels()[-1]
    monkeypatch.setenv(cpu.CHOICE, "")
    assert cpu.chosen_level() == cpu.levels()[-1]


@pytest.mark.parametrize("choice", ["sse9", "avx512"])
def test_an_instruction_set_that_is_not_there_is_refused(
    choice: str, tools: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Levels that nobody knows, or that only another processor would have, are refused."""
    monkeypatch.setattr(cpu, "levels", lambda: ("portable", "avx2"))
    monkeypatch.setenv(cpu.CHOICE, choice)
    with pytest.raises(ValueError, match=f"^DGR_CPU_LEVEL is '{choice}', .*: portable, avx2.$"):
        tools.render(tools.scene(5), "cpu")


@pytest.mark.parametrize(("code", "error"), [(1, MemoryError), (2, ValueError)])
def test_error_codes_become_exceptions(code: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        cpu._check(code)
