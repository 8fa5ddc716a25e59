"""The iteration's benchmark: its parts add up, its counts are those of the log and of hand work, its table is whole."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import guidance
import iteration as script
import training.step
from config import Config
from guidance.prior import StableDiffusionPrior
from iterations import measure, watch
from iterations.clock import Clock, Span
from iterations.sd21 import PARAMETERS, RandomPrior
from iterations.watch import PARTS, WHOLE, milliseconds, watched
from iterations.work import Work, matrix_peak, operations, tera, work_of
from scene.cameras import ViewRange, sample
from tests.changed import changed
from utils.device import HOST
from utils.moments import HostMoment

NO_WORK = Work(unet=10**9, encode=10**9, encode_backward=10**9)


@pytest.fixture
def quiet(tiny_config: Config) -> Config:
    """A configuration whose number of Gaussians never changes."""
    return changed(tiny_config, densify_until_iter=0, C_batch_size=3, image_w=32, image_h=32, iterations=40)


@pytest.fixture
def prior(tiny_config: Config) -> StableDiffusionPrior:
    return guidance.prior.load_prior(tiny_config, HOST)


def at(seconds: float) -> HostMoment:
    moment = HostMoment()
    moment._at = seconds
    return moment


def span(name: str, start: float, end: float) -> Span:
    return Span(name, at(start), at(end))


def test_parts_add_up_to_the_whole() -> None:
    spans = [span(WHOLE, 0, 10), span("render", 1, 2), span(watch.GUIDE, 2, 8), span("encode", 2, 3)]
    spans += [span("U-Net", 3, 5), span("U-Net", 6, 7.5), span("backward: autoencoder", 8, 8.5)]
    found = milliseconds(spans)
    assert found["U-Net"] == pytest.approx(3500)
    assert found["guidance's rest"] == pytest.approx(1500)
    assert found["rest"] == pytest.approx(2500)
    assert sum(found[name] for name in PARTS) == pytest.approx(found[WHOLE]) == pytest.approx(10_000)
    assert set(found) == {*PARTS, WHOLE}


@pytest.mark.parametrize("way", measure.WAYS)
def test_a_real_iteration_leaves_spans_of_every_part(
    quiet: Config, prior: StableDiffusionPrior, way: str
) -> None:
    """Spans are in order and within the whole, with as many U-Net rows as the log; then nothing is watched."""
    state = measure.assembled(changed(quiet, guidance_type="gcs"), prior, way)
    clock, plain = Clock(HOST), training.step.training_step
    with watched(state, clock):
        logged = measure.iterate(state, 1)
    assert training.step.training_step is plain
    assert "predict" not in vars(prior)
    assert "encode" not in vars(prior)
    parts = 3 if way == measure.VIEW_BY_VIEW else 1
    names = [span.name for span in clock.spans]
    assert names.count("render") == names.count("encode") == names.count(watch.GUIDE) == parts
    assert names.count("backward: autoencoder") == names.count("backward: rasterizer") == parts
    assert names.count("decode") == 2 * parts
    assert names.count("optimizer") == names.count(WHOLE) == 1
    rows = sum(span.rows for span in clock.spans if span.name == "U-Net")
    assert rows == round(3 * float(logged["guidance/unet_evals_per_view"]))
    [whole] = [span for span in clock.spans if span.name == WHOLE]
    for inner in clock.spans:
        assert inner.ms >= 0
        assert Span("", whole.start, inner.start).ms >= 0
        assert Span("", inner.end, whole.end).ms >= 0
    found = milliseconds(clock.spans)
    assert all(found[name] >= 0 for name in PARTS)
    assert all(found[name] > 0 for name in PARTS if name != "density control")
    before = len(clock.spans)
    measure.iterate(state, 2)
    assert len(clock.spans) == before


def test_views_one_by_one_give_the_same_gradients(quiet: Config, prior: StableDiffusionPrior) -> None:
    """Gradients of the projected means, which density control reads, are compared too."""

    def gradients() -> list[Tensor]:
        state = measure.assembled(changed(quiet, lambda_alpha=2.0), prior, measure.ONE_BY_ONE)
        cameras = sample(quiet.camera, ViewRange.initial(quiet.camera), 3, state.draws.at("cameras", 1))
        part = training.step.backward(state, cameras, range(3), 1)
        means2d = part.seen.out.means2d.grad
        assert means2d is not None
        # Round Gaussians do not feel that they are turned.
        raw = state.gaussians.raw()
        return [means2d, *(raw[name].grad for name in ("xyz", "f_dc", "opacity", "scaling"))]

    together = gradients()
    with watch.views_rendered_one_by_one():
        apart = gradients()
    for one, other in zip(together, apart):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(one.abs().max()))
    assert float(together[0].abs().max()) > 0


def test_figures_are_those_of_the_median_block(
    quiet: Config, prior: StableDiffusionPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three blocks take 30, 10 and 20 ms an iteration."""
    slow = iter([99.0] * 2 + [30.0] * 2 + [10.0] * 2 + [20.0] * 2)

    def step(state: object, number: int) -> SimpleNamespace:
        return SimpleNamespace(numbers={"guidance/unet_evals_per_view": float(number)})

    def timed(spans: list[Span]) -> dict[str, float]:
        return {**dict.fromkeys(PARTS, 0.0), WHOLE: sum(span.ms for span in spans)}

    def now(clock: Clock) -> HostMoment:
        return at(0.0)

    monkeypatch.setattr(training.step, "training_step", step)
    monkeypatch.setattr(measure, "milliseconds", timed)
    monkeypatch.setattr(Span, "ms", property(lambda span: next(slow)))
    monkeypatch.setattr(Clock, "now", now)
    # The warm-up's two are forgotten before anybody asks how long they took.
    for _ in range(2):
        next(slow)
    found = measure.figures(changed(quiet, iterations=40), prior, "ours", measure.Job(3, 2), NO_WORK)
    assert found["ms"] == 20.0
    steps = measure.Job(3, 2).steps(40)
    assert found["evaluations"] == sum(steps[2]) / 2


def test_blocks_are_spread_over_the_run() -> None:
    steps = measure.Job(blocks=3, iterations=4).steps(5000)
    assert [len(block) for block in steps] == [4, 4, 4]
    assert len({step for block in steps for step in block}) == 12
    assert all(1 <= step <= 5000 for block in steps for step in block)
    for block in steps:
        assert sum(block) / 4 == pytest.approx(2500, rel=0.2)
        assert block == sorted(block)


@pytest.mark.parametrize("device", [HOST, torch.device("meta")], ids=str)
def test_operations_of_layers_counted_by_hand(device: torch.device) -> None:
    """A multiplication and an addition are two."""
    with device:
        convolution, linear = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Linear(5, 7, bias=False)
        image, rows = torch.zeros(2, 3, 10, 12, requires_grad=True), torch.zeros(4, 5)
    convolution.requires_grad_(False)
    made: list[Tensor] = []
    expected = 2 * (2 * 10 * 12) * 8 * (3 * 9)
    assert operations(lambda: made.append(convolution(image))) == expected
    assert operations(made[0].sum().backward) == expected, "of the gradient of the input only"
    assert operations(lambda: linear(rows)) == 2 * 4 * 5 * 7


def test_work_of_stable_diffusion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers counted by the textbook's formulas agree with torch's counter, which counts what the layers call."""
    prior, found = RandomPrior(torch.device("meta"), torch.float16), [0]
    plain = F.scaled_dot_product_attention

    def attention(query: Tensor, key: Tensor, *rest: Tensor, **settings: object) -> Tensor:
        # [L, D] times [D, S], and [L, S] times [S, D].
        found[0] += 2 * 2 * query.numel() * key.shape[-2]
        return plain(query, key, *rest, **settings)

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer.weight, Tensor)
        found[0] += 2 * output.numel() * layer.weight[0].numel()

    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    for layer in prior.unet.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(count)
    with torch.no_grad():
        prior.unet(
            *(
                torch.zeros(shape, dtype=torch.float16, device="meta")
                for shape in ((1, 4, 64, 64), (1,), (1, 77, 1024))
            )
        )
    by_hand = found[0]
    work = work_of(prior)
    assert work.unet == by_hand
    # Frozen weights have no gradients: the way back costs what the way there does.
    assert work.encode_backward == pytest.approx(work.encode, rel=0.1)


def test_random_priors_are_made_in_their_precision() -> None:
    prior = RandomPrior(torch.device("meta"), torch.bfloat16)
    for name in ("unet", "vae"):
        parameters = list(getattr(prior, name).parameters())
        assert {parameter.dtype for parameter in parameters} == {torch.bfloat16}
        assert sum(parameter.numel() for parameter in parameters) == PARAMETERS[name]
    assert torch.get_default_dtype() == torch.float32
    assert prior.image_size == 512


def test_speeds() -> None:
    assert tera(2e12, 500.0) == pytest.approx(4.0)
    assert tera(2e12, 0.0) == 0.0
    assert 0 < matrix_peak(HOST, torch.float32) < 1000


def test_running_out_of_memory_is_a_line_of_the_table(
    quiet: Config,
    prior: StableDiffusionPrior,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*args: object) -> dict[str, object]:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(measure, "figures", full)
    row = measure.measure(quiet, prior, "ours", measure.Job(1, 1), NO_WORK)
    script.show([row], 1.0, 100)
    assert "not run: out of memory" in table(capsys.readouterr().out)[0]["at once"]


def table(printed: str) -> list[dict[str, str]]:
    header, _, *lines = (
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in printed.splitlines()
        if line.startswith("|")
    )
    assert all(len(line) == len(header) for line in lines)
    return [dict(zip(header, line)) for line in lines]


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, object]]:
    """Output of the script on toybox, at a small size."""
    out = tmp_path_factory.mktemp("out") / "found.json"
    flags = (
        "--model toybox --device cpu --guidance sds sctd --prompting Perp-Neg --views 2 --blocks 1 --block 1"
    )
    with redirect_stdout(StringIO()) as shown:
        script.main([*flags.split(), "--size", "32", "--count", "100", "--json", str(out)])
    return shown.getvalue(), json.loads(out.read_text())


@pytest.mark.thorough
def test_the_table_is_whole(printed: tuple[str, dict[str, object]]) -> None:
    lines = table(printed[0])
    assert [(line["guidance"], line["way"]) for line in lines] == [
        (method, way) for method in ("sds", "sctd") for way in measure.ways_of(method)
    ]
    for line in lines:
        assert [name for name, cell in line.items() if not cell] == ["waits"]
        # Printed with one digit each.
        assert sum(float(line[name]) for name in PARTS) == pytest.approx(float(line["ms"]), abs=0.6)
    assert [line["x ours"] for line in lines if line["way"] == "ours"] == ["1.00", "1.00"]
    # SDS asks once: for all conditions of both views, or of one after the other.
    assert [float(line["U-Net calls"].split()[0]) for line in lines[:3]] == [1.0, 1.0, 2.0]


@pytest.mark.thorough
def test_the_json_has_the_same_and_says_where(printed: tuple[str, dict[str, object]]) -> None:
    found = printed[1]
    assert found["torch"] == torch.__version__
    assert found["precision"] == "float32"
    rows = found["rows"]
    assert isinstance(rows, list)
    assert len(rows) == 3 + 4, "only SCTD has a way of its own"
    for row in rows:
        assert set(row["parts"]) == set(PARTS)
        assert row["evaluations"] * 2 == pytest.approx(row["latents"])
        assert row["waits"] is None


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--blocks", "2"], "--blocks is 2, but must be odd"),
        (["--block", "0"], "--block is 0, but must be at least 1"),
        (["--guidance", "best"], "invalid choice: 'best'"),
    ],
)
def test_wrong_flags_are_told(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        script.parse(flags)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.gpu
def test_waits_are_counted() -> None:
    device = torch.device("cuda")
    ones = torch.ones(10, device=device)
    assert measure.host_waits(lambda: ones * 2, device) == 0
    assert measure.host_waits(lambda: [float(one) for one in ones[:3]], device) == 3


def test_nothing_counts_waits_on_the_host() -> None:
    assert measure.host_waits(lambda: None, HOST) is None
