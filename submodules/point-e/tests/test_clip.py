"""CLIP's embeddings against plain functions, its preprocessing, and where CLIP is found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from dangerous import Dangerous
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_clip import (
    IMAGE,
    PATCH,
    PROJECTION,
    TOKENS,
    WIDTH,
    reference_image,
    reference_text_vector,
    write_clip,
)
from transformers import CLIPModel, CLIPTextModelWithProjection, CLIPTokenizer

from point_e import PointEError
from point_e.clip import cleaned, find_clip, image_vector_and_grid, preprocess, text_vector

HOST = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    write_clip(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> CLIPModel:
    return CLIPModel.from_pretrained(folder)


def random_image(width: int, height: int, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(width * height)
    small = rng.integers(0, 256, (5, 7, 4), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("“a” ﬁsh", '"a" fish'),  # curly quotes and a ligature
        ("a &amp;amp; b", "a & b"),  # entities, escaped twice
        ("&lt;b&gt;", "<b>"),
        ("cafÃ© ", "café"),  # UTF-8 read as Latin-1
        ("cafe\u0301", "café"),
    ],
)
def test_text_is_cleaned_as_openai_cleans_it(folder: Path, text: str, plain: str) -> None:
    """Expected are the tokens that OpenAI's tokenizer gives, by its rules: ftfy, then html.unescape twice."""
    assert cleaned(text) == plain
    assert torch.equal(text_vector(folder, text, HOST), text_vector(folder, plain, HOST))


@pytest.mark.parametrize("text", ["a", "a corgi", "A  Corgi"])
def test_text_vector_is_clips(folder: Path, model: CLIPModel, text: str) -> None:
    tokens = CLIPTokenizer.from_pretrained(folder)(text).input_ids
    assert len(tokens) <= TOKENS
    vector = text_vector(folder, text, HOST)
    assert (vector.shape, vector.dtype) == ((1, PROJECTION), torch.float32)
    torch.testing.assert_close(vector[0], reference_text_vector(model, tokens), rtol=1e-5, atol=1e-6)


def test_a_long_text_is_cut_as_clip_does_it(
    folder: Path, model: CLIPModel, caplog: pytest.LogCaptureFixture
) -> None:
    text = "one corgi and another corgi"
    cut = CLIPTokenizer.from_pretrained(folder)(text, truncation=True, max_length=TOKENS).input_ids
    vector = text_vector(folder, text, HOST)
    torch.testing.assert_close(vector[0], reference_text_vector(model, cut), rtol=1e-5, atol=1e-6)
    assert f"cut at {TOKENS} tokens: {text}" in caplog.text


def test_image_vector_and_grid_are_clips(folder: Path, model: CLIPModel) -> None:
    image = random_image(40, 48)
    vector, grid = image_vector_and_grid(folder, image, HOST)
    wanted_vector, wanted_grid = reference_image(model, preprocess(image, IMAGE)[0])
    assert grid.shape == (1, (IMAGE // PATCH) ** 2, WIDTH)
    torch.testing.assert_close(vector[0], wanted_vector, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grid[0], wanted_grid, rtol=1e-5, atol=1e-5)


def test_a_folder_with_the_text_tower_alone_in_half_precision_serves(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "clip")
    (tmp_path / "clip" / "model.safetensors").unlink()
    CLIPTextModelWithProjection.from_pretrained(folder).half().save_pretrained(tmp_path / "clip")
    vector = text_vector(find_clip(str(tmp_path / "clip"), text=True, offline=True), "a corgi", HOST)
    assert vector.dtype == torch.float32
    torch.testing.assert_close(vector, text_vector(folder, "a corgi", HOST), rtol=0.01, atol=0.01)


@pytest.mark.parametrize(("width", "height"), [(32, 32), (50, 70), (300, 200), (31, 97), (20, 16)])
def test_preprocessing_is_that_of_transformers(width: int, height: int) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    image = random_image(width, height)
    sizes = {"size": {"shortest_edge": IMAGE}, "crop_size": {"height": IMAGE, "width": IMAGE}}
    wanted = CLIPImageProcessorPil(**sizes)(image, return_tensors="pt").pixel_values
    resized = max(width, height) * IMAGE // min(width, height)
    assert (resized - IMAGE) % 2 == 0, "else the two may put the middle one pixel apart"
    torch.testing.assert_close(preprocess(image, IMAGE), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_any_mode_of_an_image(mode: str) -> None:
    assert preprocess(random_image(40, 30, mode), IMAGE).shape == (1, 3, IMAGE, IMAGE)


def test_what_is_transparent_is_white() -> None:
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    white = Image.new("RGB", (40, 40), "white")
    assert torch.equal(preprocess(clear, IMAGE), preprocess(white, IMAGE))
    red = Image.new("RGBA", (40, 40), (255, 0, 0, 255))
    assert torch.equal(preprocess(red, IMAGE), preprocess(red.convert("RGB"), IMAGE))


# Finding.


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache without network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def cached(hub_cache: Path, files: list[str]) -> Path:
    """A snapshot of org/clip with empty files in the hub's cache."""
    repo = hub_cache / "models--org--clip"
    snapshot = repo / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0" * 40)
    for name in files:
        (snapshot / name).touch()
    return snapshot


@pytest.mark.parametrize("offline", [True, False])
def test_the_hubs_cache_serves_without_network(hub_cache: Path, offline: bool) -> None:
    snapshot = cached(hub_cache, ["config.json", "model.safetensors", "vocab.json"])
    assert find_clip("org/clip", text=True, offline=offline) == snapshot


@pytest.mark.parametrize("files", [None, ["config.json", "vocab.json"]])
def test_what_is_not_whole_in_the_cache_names_the_ways_out(hub_cache: Path, files: list[str] | None) -> None:
    if files is not None:
        cached(hub_cache, files)
    for offline, why in ((True, "this is offline"), (False, "the hub does not give")):
        with pytest.raises(PointEError, match=rf"{hub_cache}, and {why}.*; give the path .* the download\.$"):
            find_clip("org/clip", text=True, offline=offline)


def test_images_need_no_tokenizer(tmp_path: Path) -> None:
    for name in ("config.json", "pytorch_model.bin"):
        (tmp_path / name).touch()
    assert find_clip(str(tmp_path), text=False, offline=True) == tmp_path
    with pytest.raises(PointEError, match=r"lacks tokenizer\.json;"):
        find_clip(str(tmp_path), text=True, offline=True)


def test_a_name_that_can_be_neither(tmp_path: Path) -> None:
    with pytest.raises(PointEError, match="neither a folder here nor an id on the hub"):
        find_clip("no/such/folder", text=True, offline=False)


def test_code_in_pickled_weights_does_not_run(folder: Path, tmp_path: Path) -> None:
    clip, witness = shutil.copytree(folder, tmp_path / "clip"), tmp_path / "it ran"
    weights = load_file(clip / "model.safetensors")
    (clip / "model.safetensors").unlink()
    torch.save(weights, clip / "pytorch_model.bin")
    torch.testing.assert_close(text_vector(clip, "a corgi", HOST), text_vector(folder, "a corgi", HOST))
    torch.save({**weights, "extra": Dangerous(witness)}, clip / "pytorch_model.bin")
    with pytest.raises(PointEError, match=r"^CLIP in .* cannot be used"):
        text_vector(clip, "a corgi", HOST)
    assert not witness.exists()


@pytest.mark.parametrize("damage", ["weights", "config", "lacking", "no sizes"])
def test_a_damaged_folder_gets_a_sentence(folder: Path, tmp_path: Path, damage: str) -> None:
    clip = shutil.copytree(folder, tmp_path / "clip")
    weights, config = clip / "model.safetensors", clip / "config.json"
    if damage == "weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "config":
        config.write_text("{")
    elif damage == "lacking":
        save_file(
            {k: v for k, v in load_file(weights).items() if "projection" not in k}, weights, {"format": "pt"}
        )
    else:
        towers = {key: {"hidden_size": "wide"} for key in ("text_config", "vision_config")}
        config.write_text(json.dumps({**json.loads(config.read_text()), **towers}))
    for run in (
        lambda: text_vector(clip, "a corgi", HOST),
        lambda: image_vector_and_grid(clip, random_image(40, 40), HOST),
    ):
        with pytest.raises(PointEError, match=r"^CLIP in ") as raised:
            run()
        assert "\n" not in str(raised.value)
