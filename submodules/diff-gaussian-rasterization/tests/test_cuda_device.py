"""Run the CUDA backend on a GPU; skipped where there is none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from random_scenes import random_case
from torch import Tensor

from diff_gaussian_rasterization import GaussianRasterizationSettings, GaussianRasterizer, rasterize

pytestmark = pytest.mark.gpu


def _on_device(scene: Any) -> dict[str, Any]:
    both = scene.gaussians | scene.cameras
    return {name: value.cuda() if isinstance(value, Tensor) else value for name, value in both.items()}


def _step(arguments: dict[str, Any]) -> list[Tensor]:
    """Images and the gradient of the means."""
    means = arguments["means"].detach().requires_grad_()
    out = rasterize(**{**arguments, "means": means})
    (out.rgb.square().sum() + out.depth.sum() + out.alpha.sum()).backward()
    assert means.grad is not None
    return [out.rgb.detach(), out.depth.detach(), out.alpha.detach(), means.grad]


def _as_bytes(run: Any) -> list[bytes]:
    images = [getattr(run.output, name) for name in ("rgb", "depth", "alpha", "radii", "means2d", "counts")]
    return [t.numpy().tobytes() for t in (*images, *run.gradients.values())]


@pytest.mark.parametrize("seed", range(200))
def test_random_scenes_agree_with_the_twin(seed: int, tools: Any) -> None:
    scene, options = random_case(seed, tools.scene)
    twins = [tools.render(scene, "reference", dtype, **options) for dtype in (torch.float64, torch.float32)]
    tools.agree(tools.render(scene, "cuda", device="cuda", **options), *twins)


@pytest.mark.parametrize("degree", [None, 0, 1, 2, 3])
def test_a_large_scene_agrees_with_the_cpu(degree: int | None, tools: Any) -> None:
    scene = tools.scene(50_000, views=4, width=512, height=512, degree=degree, size=0.01)
    tools.agree(tools.render(scene, "cuda", device="cuda"), tools.render(scene, "cpu"))


@pytest.mark.parametrize("degree", [None, 0, 3])
def test_camera_gradients(degree: int | None, tools: Any) -> None:
    scene = tools.scene(300, views=2, width=50, height=35, degree=degree)
    expected = tools.camera_gradients(scene, "reference", torch.float64)
    actual = tools.camera_gradients(scene, "cuda", device="cuda")
    for name, gradient in expected.items():
        assert (actual[name] - gradient).norm() <= 1e-5 * gradient.norm(), name


def test_the_default_backend_is_the_device_own(tools: Any) -> None:
    scene = tools.scene(30)
    default, own = (tools.render(scene, backend, device="cuda").output.rgb for backend in (None, "cuda"))
    assert torch.equal(default, own)


def test_images_repeat_and_with_the_switch_gradients_too(tools: Any) -> None:
    scene = tools.scene(20_000, views=2, width=256, height=256, size=0.03)
    assert (
        _as_bytes(tools.render(scene, "cuda", device="cuda"))[:6]
        == _as_bytes(tools.render(scene, "cuda", device="cuda"))[:6]
    )
    torch.use_deterministic_algorithms(True)
    try:
        runs = [_as_bytes(tools.render(scene, "cuda", device="cuda")) for _ in range(5)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(run == runs[0] for run in runs)


def test_an_overflow_takes_the_slow_path(tools: Any) -> None:
    scene = tools.scene(
        3000, width=301, height=299, size=1.0
    )  # a size that nobody else uses: the room is still a guess
    expected = tools.render(scene, "cpu")
    for _ in range(2):
        tools.agree(tools.render(scene, "cuda", device="cuda"), expected)
        torch.cuda.synchronize()


def test_it_never_waits_for_the_device(tools: Any) -> None:
    arguments = _on_device(tools.scene(2000, views=2, width=128, height=128))
    _step(arguments)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        _step(arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_single_view_classes_never_wait_either(tools: Any) -> None:
    scene = tools.scene(500, width=64, height=48)
    view = scene.cameras["viewmats"][0].T.cuda()
    settings = GaussianRasterizationSettings(
        48,
        64,
        0.5,
        0.4,
        torch.zeros(3).cuda(),
        1.0,
        view,
        view @ torch.eye(4).cuda(),
        1,
        torch.zeros(3).cuda(),
        False,
    )
    g = {name: tensor.cuda().requires_grad_() for name, tensor in scene.gaussians.items()}
    means2d = torch.zeros_like(g["means"], requires_grad=True)
    rasterizer = GaussianRasterizer(settings)

    def step() -> None:
        color, _, depth_alpha = rasterizer(
            g["means"], means2d, g["opacities"], g["shs"], None, g["scales"], g["rotations"]
        )
        (color.sum() + depth_alpha.sum()).backward()

    step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_it_runs_on_the_current_stream(tools: Any) -> None:
    arguments = _on_device(tools.scene(2000, views=2, width=128, height=128))
    expected = _step(arguments)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # work on the other stream would overtake this
        late = {**arguments, "means": arguments["means"] * torch.ones((), device="cuda")}
        actual = _step(late)
    torch.cuda.current_stream().wait_stream(stream)
    for found, wanted in zip(actual, expected):
        assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_a_graph_captures_forward_and_backward(tools: Any) -> None:
    arguments = _on_device(tools.scene(2000, views=2, width=128, height=128))
    means = arguments["means"]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            _step(arguments)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = _step(arguments)
    for shift in (0.0, 0.1, 5.0):
        moved = means + shift
        expected = _step({**arguments, "means": moved})
        before = means.clone()
        means.copy_(moved)
        graph.replay()
        means.copy_(before)
        for found, wanted in zip(captured, expected):
            assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-4)
