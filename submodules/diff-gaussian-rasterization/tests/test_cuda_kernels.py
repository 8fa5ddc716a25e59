"""Execute the CUDA kernels and their host code on the CPU by the shim, against the twin in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from random_scenes import random_case
from shim import VARIANT, ShimKernels, run_sanitized

from diff_gaussian_rasterization import batched, cuda, rasterize


@pytest.fixture
def shim(monkeypatch: pytest.MonkeyPatch) -> Callable[..., cuda.Engine]:
    """Make a fresh engine on kernels whose threads run in the order of this seed, and the backend "shim" of
    it.

    A data race fails the test.
    """

    def make(seed: int = 0) -> cuda.Engine:
        engine = cuda.Engine(ShimKernels(seed, variant="races" if VARIANT == "plain" else VARIANT))

        def backend(*arguments: Any) -> Any:
            return cuda.rasterize_with(engine, *arguments)

        monkeypatch.setitem(batched.BACKENDS, "shim", backend)
        return engine

    return make


@pytest.fixture
def deterministic() -> Any:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def _agrees_with_twins(scene: Any, tools: Any, **options: Any) -> None:
    twins = [tools.render(scene, "reference", dtype, **options) for dtype in (torch.float64, torch.float32)]
    tools.agree(tools.render(scene, "shim", **options), *twins)


@pytest.mark.parametrize(
    "seed", [*range(45), *(pytest.param(s, marks=pytest.mark.thorough) for s in range(45, 200))]
)
def test_random_scenes_agree_with_the_twin(seed: int, shim: Any, tools: Any) -> None:
    shim(seed)
    scene, options = random_case(seed, tools.scene)
    _agrees_with_twins(scene, tools, **options)


def test_thousands_in_one_pixel(shim: Any, tools: Any) -> None:
    shim()
    scene = tools.scene(5000, width=17, height=16, degree=None, size=0.02)
    scene.gaussians["means"] *= 1e-3
    scene.gaussians["opacities"] *= 0.02  # or the first few hundred would hide all others
    _agrees_with_twins(scene, tools)


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 513, 1025, 2049, 4097, 9000])
def test_lists_of_any_length_are_sorted(count: int, shim: Any, tools: Any) -> None:
    """Gaussians of equal size and place, in one tile: the order alone decides the image."""
    shim(count)
    scene = tools.scene(count, width=3, height=2, degree=None)
    scene.cameras["viewmats"] = torch.eye(4)[None]
    rng = torch.Generator().manual_seed(count)
    depths = 1 + torch.randint(max(count // 3, 1), (count,), generator=rng) / count  # with ties
    scene.gaussians["means"] = torch.stack([torch.zeros(count), torch.zeros(count), depths], dim=-1)
    scene.gaussians["scales"].fill_(10.0)
    scene.gaussians["opacities"].fill_(min(0.9, 8 / count))
    image = tools.render(scene, "shim").output.rgb
    assert (image - tools.render(scene, "reference", torch.float64).output.rgb).abs().max() < 1e-4


def _as_bytes(run: Any) -> list[bytes]:
    images = [getattr(run.output, name) for name in ("rgb", "depth", "alpha", "radii", "means2d", "counts")]
    return [t.detach().numpy().tobytes() for t in (*images, *run.gradients.values())]


@pytest.mark.thorough
def test_images_do_not_depend_on_the_order_of_threads(shim: Any, tools: Any) -> None:
    scene = tools.scene(300, views=2, width=65, height=50, size=0.2)
    images = []
    for seed in range(4):
        shim(seed)
        images.append(_as_bytes(tools.render(scene, "shim"))[:6])
    assert all(image == images[0] for image in images)


def test_the_deterministic_switch_fixes_every_byte(shim: Any, deterministic: None, tools: Any) -> None:
    scene = tools.scene(300, views=2, width=65, height=50, size=0.2)
    runs = []
    for seed in range(4):
        shim(seed)
        runs.append(_as_bytes(tools.render(scene, "shim")))
    assert all(run == runs[0] for run in runs)


@pytest.mark.thorough
def test_without_the_switch_only_rounding_depends_on_the_order(shim: Any, tools: Any) -> None:
    scene = tools.scene(300, views=2, width=65, height=50, size=0.2)
    shim(1)
    first = tools.render(scene, "shim").gradients
    shim(2)
    second = tools.render(scene, "shim").gradients
    assert any(not torch.equal(first[name], second[name]) for name in first)
    for name in first:
        assert torch.allclose(
            first[name], second[name], rtol=1e-3, atol=1e-5 * first[name].abs().max().item()
        )


def _spreading(tools: Any) -> Any:
    return tools.scene(60, views=2, width=100, height=90, size=1.0)  # far more instances than the first guess


def test_an_overflow_takes_the_slow_path_and_the_next_call_has_room(shim: Any, tools: Any) -> None:
    engine, scene = shim(3), _spreading(tools)
    expected = tools.render(scene, "reference", torch.float64)
    names = []
    launch = engine.kernels.launch

    def spy(name: str, blocks: int, threads: int, frame: cuda._Frame) -> None:
        names.append((name, frame.capacity))
        launch(name, blocks, threads, frame)

    engine.kernels.launch = spy
    for _ in range(2):
        tools.agree(tools.render(scene, "shim"), expected)
    (room,) = engine.rooms.values()
    needed = int(room.status[0])
    capacities = [capacity for name, capacity in names if name == "render"]
    assert capacities[0] < needed <= capacities[1]


@pytest.mark.thorough
def test_the_slow_path_works_with_room_for_one_list_only(
    shim: Any, tools: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = _spreading(tools)
    monkeypatch.setattr(cuda._Room, "for_scene", lambda self, count, views: count)
    shim(5)
    tools.agree(tools.render(scene, "shim"), tools.render(scene, "reference", torch.float64))


@pytest.mark.thorough
def test_the_deterministic_switch_makes_room_at_once(shim: Any, deterministic: None, tools: Any) -> None:
    scene = _spreading(tools)
    runs = []
    for seed in range(3):
        shim(seed)  # a fresh engine, which has seen nothing yet
        runs.append(_as_bytes(tools.render(scene, "shim")))
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.thorough
def test_room_only_grows(shim: Any, tools: Any) -> None:
    engine = shim()
    sizes = []
    for size in (0.5, 0.01, 0.5, 0.01):
        tools.render(tools.scene(200, width=100, height=90, size=size), "shim")
        (room,) = engine.rooms.values()
        sizes.append(room.instances)
    assert sizes == sorted(sizes)
    assert sizes[1] == sizes[3]


def test_a_graph_can_be_walked_twice_after_other_calls(shim: Any, tools: Any) -> None:
    shim()
    scene = tools.scene(60)
    means = scene.gaussians["means"].requires_grad_()
    out = rasterize(**scene.gaussians, **scene.cameras, backend="shim")
    first = torch.autograd.grad(out.rgb.sum(), means, retain_graph=True)[0]
    tools.render(_spreading(tools), "shim")
    assert torch.equal(torch.autograd.grad(out.rgb.sum(), means)[0], first)


def test_no_gaussian_at_all(shim: Any, tools: Any) -> None:
    shim()
    scene = tools.scene(0, views=2, width=20, height=33)
    run = tools.render(scene, "shim")
    assert torch.equal(run.output.rgb, scene.cameras["background"][:, :, None, None].expand(2, 3, 33, 20))
    assert run.gradients["means"].shape == (0, 3)


def test_gradients_of_some_outputs_and_inputs_only(shim: Any, tools: Any) -> None:
    shim()
    scene = tools.scene(50, views=2)
    scene.gaussians["opacities"].requires_grad_()
    for name in ("rgb", "depth", "alpha"):
        grads = []
        for backend in ("shim", "cpu"):
            out = rasterize(**scene.gaussians, **scene.cameras, backend=backend)
            grads.append(
                torch.autograd.grad(getattr(out, name).square().sum(), scene.gaussians["opacities"])[0]
            )
        assert torch.allclose(*grads, rtol=1e-4, atol=1e-5)


def test_every_byte_is_written(shim: Any, tools: Any) -> None:
    """Memory starts as NaN, and nothing of it comes out."""
    shim()
    scene = tools.scene(100, views=2, width=40, height=23)
    scene.gaussians["means"][::2] *= 20  # many that some view does not see
    expected = _as_bytes(tools.render(scene, "shim"))
    torch.use_deterministic_algorithms(True)  # fills what torch.empty returns
    try:
        run = tools.render(scene, "shim")
    finally:
        torch.use_deterministic_algorithms(False)
    assert _as_bytes(run)[:6] == expected[:6]
    assert all(gradient.isfinite().all() for gradient in run.gradients.values())


@pytest.mark.parametrize("antialiasing", [False, True], ids=["plain", "antialiased"])
def test_needles_keep_their_digits(antialiasing: bool, shim: Any, tools: Any) -> None:
    shim()
    scene = tools.needles(1000)
    actual = tools.render(scene, "shim", antialiasing=antialiasing)
    expected = tools.render(scene, "reference", torch.float64, antialiasing=antialiasing)
    assert (actual.output.rgb - expected.output.rgb).norm() < 1e-6 * expected.output.rgb.norm()
    scales = expected.gradients["scales"]
    assert (actual.gradients["scales"] - scales).norm() < 1e-4 * scales.norm()


@pytest.mark.parametrize("degree", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("covariances", [False, True])
def test_camera_gradients(degree: int | None, covariances: bool, shim: Any, tools: Any) -> None:
    scene = tools.scene(300, views=2, width=50, height=35, degree=degree, covariances=covariances)
    scene.gaussians["means"] *= 2  # some beyond the limits of x/z and y/z
    expected = tools.camera_gradients(scene, "reference", torch.float64, antialiasing=covariances)
    for seed in (0, 1):
        shim(seed)
        actual = tools.camera_gradients(scene, "shim", antialiasing=covariances)
        for name, gradient in expected.items():
            assert (actual[name] - gradient).norm() <= 1e-5 * gradient.norm(), name


@pytest.mark.thorough
def test_under_sanitizers() -> None:
    """Run all of this file again, with every access to memory and every conversion checked."""
    done = run_sanitized(__file__, "-q", "-m", "not slow and not thorough")
    assert done.returncode == 0, done.stdout
