"""Make points from text and images, from end to end, with a tiny CLIP and tiny stages of random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from openai_layout import layout
from PIL import Image
from tiny_clip import write_clip
from tiny_folders import COARSE, FINE, IMAGES, NOTHING, TEXT, write_folder
from torch import Tensor

import point_e
from point_e import PointCloud, PointE, PointEError
from point_e.clip import image_vector_and_grid, text_vector
from point_e.sampler import Condition, sample

STEPS = 3
Folders = Callable[[str], Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("point-e")
    bases = {"text": TEXT, "image": IMAGES, "nothing": NOTHING}
    return {name: write_folder(root / name, base) for name, base in bases.items()}


@pytest.fixture(scope="module")
def image() -> Image.Image:
    pixels = torch.rand(40, 40, 3, generator=torch.Generator().manual_seed(0))
    return Image.fromarray((255 * pixels).byte().numpy())


def corgi(pipeline: PointE, prompt: str = "a corgi", **options: float) -> PointCloud:
    return pipeline.from_text(prompt, steps=STEPS, progress=False, **options)


def equal(one: PointCloud, other: PointCloud) -> bool:
    return torch.equal(one.points, other.points) and torch.equal(one.colors, other.colors)


def test_text_becomes_points(folders: dict[str, Path]) -> None:
    cloud = corgi(point_e.load(folders["text"]))
    for values in (cloud.points, cloud.colors):
        assert (values.shape, values.dtype, values.device.type) == ((FINE, 3), torch.float32, "cpu")
        assert torch.isfinite(values).all()
    steps = 255 * cloud.colors
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-4)
    assert (cloud.colors.min() >= 0, cloud.colors.max() <= 1) == (True, True)


def test_a_seed_gives_the_same_points_and_another_gives_others(folders: dict[str, Path]) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = corgi(point_e.load(folders["text"]), seed=5)
    assert torch.equal(torch.get_rng_state(), state), "the generator of others is left alone"
    torch.rand(1)
    again = point_e.load(folders["text"])
    assert equal(corgi(again, seed=5), first)
    assert not equal(corgi(again, seed=6), first)


def test_prompt_guidance_and_steps_matter(folders: dict[str, Path]) -> None:
    pipeline = point_e.load(folders["text"])
    usual = corgi(pipeline)
    assert not equal(corgi(pipeline, "a cat"), usual)
    assert not equal(corgi(pipeline, guidance_scale=1.0), usual)
    assert equal(corgi(pipeline, guidance_scale=3.0), usual)
    assert not equal(pipeline.from_text("a corgi", steps=STEPS + 1, progress=False), usual)


def test_each_stage_is_sampled_in_its_own_number_of_steps(folders: dict[str, Path]) -> None:
    pipeline = point_e.load(folders["text"])
    quick = replace(pipeline, stages=tuple(replace(stage, steps=STEPS) for stage in pipeline.stages))
    assert equal(quick.from_text("a corgi", progress=False), corgi(pipeline))


def test_without_guidance_the_prompt_counts_for_nothing(folders: dict[str, Path]) -> None:
    pipeline = point_e.load(folders["text"])
    assert equal(corgi(pipeline, guidance_scale=0.0), corgi(pipeline, "a cat", guidance_scale=0.0))


def by_hand(pipeline: PointE, scales: tuple[float, float], base: Tensor, grid: Tensor) -> PointCloud:
    """Sample both stages, one after the other, with the conditions and guidance given."""
    rng = torch.Generator().manual_seed(0)
    options = {"batch": 1, "rng": rng, "steps": STEPS}
    (first, second), (stage, finer) = pipeline.networks, pipeline.stages
    coarse = sample(first, stage, Condition(base), scale=scales[0], **options)
    assert coarse.shape == (1, COARSE, 6)
    fine = sample(second, finer, Condition(grid, coarse), scale=scales[1], **options)
    return PointCloud(fine[0, :, :3], fine[0, :, 3:].clamp(0, 255).round() / 255)


def test_text_guides_the_base_model_and_the_upsampler_not_at_all(folders: dict[str, Path]) -> None:
    pipeline = point_e.load(folders["text"])
    vector = text_vector(folders["text"] / "clip", "a corgi", pipeline.device)
    config = pipeline.stages[1].model
    unseen = torch.zeros(1, config.clip_tokens, config.clip_width)
    assert equal(corgi(pipeline), by_hand(pipeline, (3.0, 1.0), vector, unseen))


def test_an_image_guides_both_stages(folders: dict[str, Path], image: Image.Image) -> None:
    pipeline = point_e.load(folders["image"])
    _, grid = image_vector_and_grid(folders["image"] / "clip", image, pipeline.device)
    cloud = pipeline.from_image(image, steps=STEPS, progress=False)
    assert equal(cloud, by_hand(pipeline, (3.0, 3.0), grid, grid))
    gentle = pipeline.from_image(image, steps=STEPS, guidance_scale=1.0, progress=False)
    assert equal(gentle, by_hand(pipeline, (1.0, 3.0), grid, grid))


def test_an_image_file_is_the_image_upright(
    folders: dict[str, Path], image: Image.Image, tmp_path: Path
) -> None:
    pipeline = point_e.load(folders["image"])
    exif = Image.Exif()
    exif[0x0112] = 6  # what is shown is turned clockwise by 90 degrees
    image.rotate(90).save(tmp_path / "turned.png", exif=exif)
    image.save(tmp_path / "upright.png")
    clouds = [
        pipeline.from_image(source, steps=1, progress=False)
        for source in (image, tmp_path / "upright.png", str(tmp_path / "turned.png"))
    ]
    assert equal(clouds[0], clouds[1])
    assert equal(clouds[0], clouds[2])


def test_from_nothing(folders: dict[str, Path]) -> None:
    pipeline = point_e.load(folders["nothing"], clip="/no/such/folder")
    cloud = pipeline.from_nothing(steps=STEPS, progress=False)
    assert cloud.points.shape == (FINE, 3)
    assert not equal(cloud, pipeline.from_nothing(seed=1, steps=STEPS, progress=False))


@pytest.mark.parametrize("made_from", ["text", "image", "nothing"])
@pytest.mark.parametrize("given", ["text", "image", "nothing"])
def test_each_model_says_what_it_is_made_for(
    folders: dict[str, Path], image: Image.Image, made_from: str, given: str
) -> None:
    if made_from == given:
        return
    pipeline = point_e.load(folders[made_from])
    calls = {
        "text": lambda: pipeline.from_text("a corgi"),
        "image": lambda: pipeline.from_image(image),
        "nothing": lambda: pipeline.from_nothing(),
    }
    with pytest.raises(PointEError, match=r"^this model (makes points from|needs) .*base40M"):
        calls[given]()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"prompt": " \n"}, "prompt is blank"),
        ({"steps": 0}, "steps is 0, but"),
        ({"seed": -1}, "seed is -1, but"),
        ({"seed": 2**63}, "seed is 9223372036854775808, but"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan, but"),
    ],
)
def test_arguments_out_of_range(folders: dict[str, Path], options: dict[str, float], sentence: str) -> None:
    pipeline = point_e.load(folders["text"])
    with pytest.raises(PointEError, match=sentence):
        pipeline.from_text(**{"prompt": "a corgi", "progress": False, **options})


@pytest.mark.parametrize("content", [None, b"", b"\x89PNG\r\n\x1a\n", b"no image"])
def test_images_that_are_none(folders: dict[str, Path], tmp_path: Path, content: bytes | None) -> None:
    pipeline = point_e.load(folders["image"])
    if content is not None:
        (tmp_path / "image.png").write_bytes(content)
    with pytest.raises(PointEError, match=r"image\.png' cannot be read: "):
        pipeline.from_image(tmp_path / "image.png", progress=False)


@pytest.mark.parametrize("device", ["abacus", "cuda:99"])
def test_devices_that_are_not_here(folders: dict[str, Path], device: str) -> None:
    with pytest.raises(PointEError, match=f"device is '{device}', which is not available here"):
        point_e.load(folders["text"], device=device)


def test_a_clip_of_another_width_is_refused(folders: dict[str, Path]) -> None:
    pipeline = point_e.load(folders["text"])
    base = replace(pipeline.stages[0], model=replace(TEXT, clip_width=768))
    wider = replace(pipeline, stages=(base, pipeline.stages[1]))
    with pytest.raises(
        PointEError, match=r"this CLIP makes a vector of \[8\] numbers, but the model needs \[768\]"
    ):
        corgi(wider)


def test_one_bar_for_the_steps_of_both_stages(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    point_e.load(folders["text"]).from_text("a corgi", steps=STEPS)
    shown = capsys.readouterr().err
    assert f"{2 * STEPS}/{2 * STEPS}" in shown
    assert "base" in shown
    assert "upsample" in shown
    assert "\n" not in shown.strip()


def test_offline_needs_nothing_but_the_folder(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def refuse(*_: object) -> None:
        raise AssertionError("asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert corgi(point_e.load(folders["text"], offline=True)).points.shape == (FINE, 3)


def test_a_damaged_stage_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny", TEXT)
    (folder / "upsample.safetensors").unlink()
    with pytest.raises(PointEError, match=r"upsample\.safetensors' cannot be read: No such file"):
        point_e.load(folder)


@pytest.mark.thorough
def test_openais_files_at_their_true_size(tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    for name, file in (("base40M-textvec", "base_40m_textvec.pt"), ("upsample", "upsample_40m.pt")):
        state = {
            key: torch.randn(shape, generator=rng) * (0.3 * shape[-1] ** -0.5 if len(shape) == 2 else 0.1)
            for key, shape in layout(name).items()
        }
        torch.save(state, tmp_path / file)
    write_clip(tmp_path / "clip", projection=768)
    pipeline = point_e.load(tmp_path, clip=tmp_path / "clip", offline=True)
    cloud = pipeline.from_text("a corgi", steps=1, progress=False)
    assert cloud.points.shape == cloud.colors.shape == (4096, 3)
    assert cloud.points.abs().max() < 3
    assert cloud.points.std(dim=0).min() > 0
