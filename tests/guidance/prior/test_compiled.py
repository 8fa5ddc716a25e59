"""The compiled prior predicts what the plain one does; where it cannot be compiled, it reports that and runs plain."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import guidance
from config import Config
from guidance import PromptEmbeddings
from guidance.prior import Adaptations, StableDiffusionPrior, compiled_unet
from guidance.prior.compiled import CACHE, Compiled, Sized, lasting_cache
from tests.changed import changed
from tests.draws import rngs
from tests.guidance.prior.texts import embedded, noise_by
from tests.lora import lora
from tests.tiny_diffusers import write_tiny_folder
from utils.device import resolve_device

HOST = resolve_device("cpu")
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("inductor"))


@pytest.fixture(autouse=True)
def fresh_compiler(cache: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what was compiled before: all of it in memory, and on the disk all but what these tests have compiled."""
    monkeypatch.setenv(CACHE, cache)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have torch trace graphs, and differentiate them, but generate no code of them, which takes minutes."""
    compiled = torch.compile

    def trace(function: Any, *, mode: str | None, **settings: Any) -> Any:
        return compiled(function, backend="aot_eager", **settings)

    monkeypatch.setattr(torch, "compile", trace)


def graphs() -> int:
    """Number of graphs that dynamo has made since the test began."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def shapes(prior: StableDiffusionPrior, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, timesteps and text."""
    rng, config = torch.Generator().manual_seed(count), prior.unet.config
    z = torch.randn(count, config.in_channels, config.sample_size, config.sample_size, generator=rng)
    cond = torch.randn(count, prior._text_length, config.cross_attention_dim, generator=rng)
    return z, torch.randint(0, 1000, (count,), generator=rng), cond


def images_of(prior: StableDiffusionPrior, count: int) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, prior.image_size, prior.image_size, generator=rng).requires_grad_()


def encoded(prior: StableDiffusionPrior, images: Tensor) -> tuple[Tensor, Tensor]:
    """Latents, and the images' gradient of their squares' sum."""
    latents = prior.encode(images)
    return latents.detach(), torch.autograd.grad(latents.square().sum(), images)[0]


def assert_as_near(found: Tensor, plain: Tensor, exact: Tensor) -> None:
    """Check that `found` is no further from `exact` (float64) than its other rounding `plain` by a small factor."""
    error, rounding = (float((each.double() - exact).norm() / exact.norm()) for each in (found, plain))
    assert error < max(4 * rounding, 1e-6)
    assert rounding < 1e-3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_folder(tmp_path_factory.mktemp("tiny"))


@pytest.mark.thorough
def test_compiled_toybox_says_the_same() -> None:
    """Noise at every batch size from one graph; latents, their gradient, and that of a whole guidance."""
    prior, exact = (StableDiffusionPrior.load("toybox", HOST) for _ in range(2))
    exact.vae.double(), exact.unet.double()
    views = 2
    images, counts = images_of(prior, views), (1, 2, 3, 5, 8)

    def everything(prior: StableDiffusionPrior) -> dict[str, Tensor]:
        found = {f"eps {count}": noise_by(prior, *shapes(prior, count)) for count in counts}
        found["latents"], found["gradient"] = encoded(prior, images)
        prompts = PromptEmbeddings(prior, "a red car", negative="ugly")
        conditioning = prompts.at(torch.tensor([0.0, 130.0]), torch.tensor([90.0, 60.0]))
        method = guidance.build(Config(guidance_type="sctd"), prior)
        output = method(images, conditioning, 0, rngs(len(images)))
        found["guidance"] = torch.autograd.grad(output.loss, images)[0]
        return found

    plain = everything(prior)
    # What the prior hands out is float32 throughout: the networks alone are exact.
    truth = everything(exact)
    prior.compile("dynamic", views, {2 * views: 1.0})
    assert graphs() == 2
    found = everything(prior)
    assert graphs() == 2, "one for the U-Net, one for the encoder"
    for name in plain:
        assert_as_near(found[name], plain[name], truth[name].double())


@pytest.mark.thorough
@pytest.mark.usefixtures("traced")
def test_a_derivative_through_the_unet_is_that_of_the_plain_one(folder: Path) -> None:
    prior = StableDiffusionPrior.load(str(folder), HOST)
    z, t, cond = shapes(prior, 2)

    def derivative() -> Tensor:
        leaf = z.clone().requires_grad_()
        eps = noise_by(prior, leaf, t, cond)
        return torch.autograd.grad(noise_by(prior, leaf - 0.5 * eps, t, cond).square().sum(), leaf)[0]

    plain = derivative()
    prior.compile("static", 1, {2: 1.0})
    assert torch.equal(derivative(), plain)


@pytest.mark.usefixtures("traced")
@pytest.mark.thorough
@pytest.mark.parametrize("how", ["dynamic", "static"])
def test_view_by_view_and_after_a_change_of_precision_it_is_the_same(
    how: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Batches have every size that was foreseen, those that are filled up to it, and one beyond."""
    prior, plain = (StableDiffusionPrior.load(str(folder), HOST) for _ in range(2))
    images = images_of(prior, 3)
    for each in (prior, plain):
        each.encode_singly = True
    prior.compile(how, 3, {1: 0.01, 3: 0.99})
    for count in (1, 2, 3, 5):
        inputs = shapes(prior, count)
        torch.testing.assert_close(noise_by(prior, *inputs), noise_by(plain, *inputs), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoded(prior, images), encoded(plain, images), rtol=1e-4, atol=1e-5)
    for each in (prior, plain):
        each.vae.bfloat16(), each.unet.bfloat16()
        each.encode_singly = False
    torch.testing.assert_close(encoded(prior, images), encoded(plain, images), rtol=0.05, atol=0.05)
    for count in (1, 3, 5):
        inputs = shapes(prior, count)
        found, expected = noise_by(prior, *inputs), noise_by(plain, *inputs)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    assert "uncompiled" not in caplog.text


@pytest.mark.thorough
@pytest.mark.usefixtures("traced")
def test_adapted_networks_are_compiled_too(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Networks with a LoRA, a textual inversion and a layer left out."""
    save_file(lora(StableDiffusionPrior.load(str(folder), HOST)), tmp_path / "lora.safetensors")
    save_file({"<toy>": torch.randn(2, 12)}, tmp_path / "toy.safetensors")
    given = Adaptations(
        lora=str(tmp_path / "lora.safetensors"), words=str(tmp_path / "toy.safetensors"), clip_skip=2
    )
    prior = StableDiffusionPrior.load(str(folder), HOST, adaptations=given)
    cond = embedded(prior, ["a <toy>", "a mug"])
    z, t, _ = shapes(prior, 2)
    expected = noise_by(prior, z, t, cond)
    prior.free_text_encoder()
    prior.compile("dynamic", 2, {2: 1.0})
    torch.testing.assert_close(noise_by(prior, z, t, cond), expected, rtol=1e-4, atol=1e-5)
    assert "uncompiled" not in caplog.text


PROGRAM = """
import sys, torch
from guidance.prior import StableDiffusionPrior
prior = StableDiffusionPrior.load(sys.argv[1], torch.device("cpu"))
unet = prior.unet.config
rng = torch.Generator().manual_seed(0)
z = torch.randn(2, unet.in_channels, unet.sample_size, unet.sample_size, generator=rng)
inputs = z, torch.tensor([20, 700]), torch.randn(2, 16, unet.cross_attention_dim, generator=rng)
images = torch.rand(1, 3, prior.image_size, prior.image_size, generator=rng).requires_grad_()

def everything():
    latents = prior.encode(images)
    return noise_by(prior, *inputs), latents.detach(), torch.autograd.grad(latents.square().sum(), images)[0]

plain = everything()
prior.compile("static", 1, {2: 1.0})
torch.testing.assert_close(everything(), plain, rtol=1e-4, atol=1e-5)
found = torch._dynamo.utils.counters["inductor"]
print(found["fxgraph_cache_miss"], found["fxgraph_cache_hit"])
"""


@pytest.mark.thorough
def test_a_second_process_finds_what_the_first_has_compiled(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes predict and encode as without a compiler; the caches hold the U-Net, and the encoder forward and backward."""
    monkeypatch.setenv(CACHE, str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_DEBUG_COMPILE", "1")  # unoptimized, for g++ to take less than minutes
    runs = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM, str(folder)], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert runs[0] == ["3", "0"]
    assert runs[1][0] == "0"


@pytest.mark.parametrize("batched", [False, True])
def test_without_a_compiler_the_plain_function_runs(batched: bool, caplog: pytest.LogCaptureFixture) -> None:
    import torch._inductor.config

    function = Compiled("The U-Net", lambda x, y: x.sin() + y.cos(), batched=batched)
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        for count in (3, 1):
            x, y = torch.randn(count, 4), torch.randn(count, 4)
            assert torch.equal(function(x, y), x.sin() + y.cos())
    [said] = [message for message in caplog.messages if "uncompiled" in message]
    assert said.startswith("The U-Net runs uncompiled, for torch cannot compile it here: ")
    assert "\n" not in said


@pytest.mark.parametrize(
    "error", [RuntimeError("Failed to find C compiler.\nmore"), torch.OutOfMemoryError("no")]
)
def test_a_warm_up_never_stops_a_run(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    function = Compiled("The encoder", torch.sin, batched=False)

    def fail() -> None:
        raise error

    function.warm_up(fail)
    told = ["The encoder runs uncompiled, for torch cannot compile it here: Failed to find C compiler."]
    assert caplog.messages == ([] if isinstance(error, torch.OutOfMemoryError) else told)


@pytest.mark.parametrize(
    ("keys", "on_host", "on_accelerator"),
    [
        ({"compile": "auto"}, None, "auto"),
        ({"compile": "auto", "deterministic": True}, None, None),
        ({"compile": "static", "deterministic": True}, "static", "static"),
        ({"compile": "false"}, None, None),
    ],
    ids=str,
)
def test_the_key_decides(
    keys: dict[str, object],
    on_host: str | None,
    on_accelerator: str | None,
    tiny_config: Config,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Batch sizes are counted only where they are needed."""
    config = changed(tiny_config, **keys)
    prior = guidance.prior.load_prior(config, HOST)
    asked: list[tuple[object, ...]] = []
    counted: list[dict[int, float]] = []

    def shares() -> dict[int, float]:
        counted.append({6: 1.0})
        return counted[-1]

    monkeypatch.setattr(prior, "compile", lambda *given: asked.append(given))
    for accelerated, how in ((False, on_host), (True, on_accelerator)):
        monkeypatch.setattr(guidance.prior, "is_accelerator", lambda device, found=accelerated: found)
        asked.clear(), counted.clear()
        guidance.prior.compile_networks(config, prior, 3, shares, needed=lambda: 7)
        assert asked == ([] if how is None else [(how, 3, {6: 1.0}, 7 if how == "auto" else 0, ["vae"])])
        assert len(counted) == len(asked)


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, object], list[int]]]:
    """Settings of each call of torch.compile, which compiles nothing, and the rows that its function was given."""
    made: list[tuple[dict[str, object], list[int]]] = []

    def compiled(function: Any, **settings: object) -> Any:
        rows: list[int] = []
        made.append((settings, rows))

        def called(*inputs: Tensor) -> Tensor:
            rows.append(len(inputs[0]))
            return function(*inputs)

        return called

    monkeypatch.setattr(torch, "compile", compiled)
    return made


def product(x: Tensor, y: Tensor) -> Tensor:
    return x.sin() * y


def pair(rows: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(rows)
    return torch.rand(rows, 4, generator=rng).to(dtype), torch.rand(rows, 4, generator=rng).to(dtype)


def test_other_sizes_are_filled_up_to_the_next_that_has_a_graph(
    compilations: list[tuple[dict[str, object], list[int]]],
) -> None:
    """Sizes beyond go through the plain function; another precision begins anew."""
    function = Sized("The U-Net", product, (2, 5), "reduce-overhead")
    for dtype in (torch.float16, torch.bfloat16):
        for rows in (1, 2, 3, 5, 6, 9):
            found = function(*pair(rows, dtype))
            assert torch.equal(found, product(*pair(rows, dtype)))
            assert found.untyped_storage().nbytes() == found.nbytes
    settings = {"fullgraph": True, "dynamic": False, "mode": "reduce-overhead"}
    assert compilations == [(settings, [2, 2, 5, 5])] * 2


def test_what_fails_to_compile_is_not_filled_up(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []

    def counted(x: Tensor) -> Tensor:
        calls.append(len(x))
        return x + 1

    function = Sized("The U-Net", counted, (4,), "reduce-overhead")
    assert not function.warm_up(lambda: 1 / 0)
    assert torch.equal(function(torch.ones(3, 2)), torch.full((3, 2), 2.0))
    assert calls == [3]
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("static_ms", [1.0, 3.0])
def test_auto_takes_the_one_that_was_faster_on_average(
    static_ms: float,
    compilations: list[tuple[dict[str, object], list[int]]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each size counts as often as it is asked for: dynamic takes 2 ms a call here, and with equal shares 3 ms."""

    def milliseconds(run: Any, device: torch.device) -> float:
        unet, rows = run.func, len(run.args[0])
        return {4: 1.0, 8: 5.0}[rows] if isinstance(unet, Compiled) else static_ms

    monkeypatch.setattr(compiled_unet, "milliseconds", milliseconds)
    caplog.set_level(logging.INFO)
    unet = compiled_unet.compiled_unet(product, pair, "auto", {4: 0.75, 8: 0.25}, HOST)
    assert isinstance(unet, Sized) == (static_ms < 2)
    assert [rows for _, rows in compilations] == [[8, 4], [8, 8, 8, 4, 4, 4]]
    [said] = caplog.messages
    assert f"measured: dynamic 2.00 ms a call, static {static_ms:.2f} ms a call" in said
    assert "4 (75%), 8 (25%)" in said
    assert ("graphs for 4, 8, 0.0% of rows added" in said) == (static_ms < 2)


def test_auto_does_not_take_what_has_no_room(
    compilations: list[tuple[dict[str, object], list[int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room is missing while it warms up, or for the rest of the run afterwards."""

    def chosen() -> object:
        return compiled_unet.compiled_unet(product, pair, "auto", {4: 1.0}, HOST, needed=10)

    times = iter([2.0, 1.0] * 2)
    left = iter([10, 9])
    monkeypatch.setattr(compiled_unet, "milliseconds", lambda run, device: next(times))
    monkeypatch.setattr(compiled_unet, "unreserved_memory", lambda device: next(left))
    assert isinstance(chosen(), Sized)
    assert isinstance(chosen(), Compiled)

    def filled_up(self: Sized, *inputs: Tensor) -> Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.undo()
    monkeypatch.setattr(torch, "compile", lambda function, **settings: function)
    monkeypatch.setattr(compiled_unet, "milliseconds", lambda run, device: 1.0)
    monkeypatch.setattr(Sized, "__call__", filled_up)
    assert isinstance(chosen(), Compiled)


def test_what_is_compiled_outlives_a_reboot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE, "/somewhere")
    assert lasting_cache() == os.environ[CACHE] == "/somewhere"
    monkeypatch.delenv(CACHE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert lasting_cache() == os.environ[CACHE] == str(tmp_path / "torch" / "inductor")
    monkeypatch.delenv(CACHE)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert not lasting_cache().startswith(str(tmp_path)), "torch's own, where nothing can be written"
