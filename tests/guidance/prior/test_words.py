"""Words of textual inversions as programs write them, in the tokenizer and the text encoder of a prior."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from guidance.prior import PriorError, StableDiffusionPrior
from guidance.prior.adaptations import Adaptations
from guidance.prior.words import learn_words, read_words
from tests.guidance.prior.texts import embedded
from tests.tiny_diffusers import write_tiny_folder
from utils.device import HOST

DIM, ROOM = 12, 14
"""Numbers in a vector of the tiny text encoder, and tokens in a prompt between its two ends."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def plain(folder: Path) -> StableDiffusionPrior:
    return StableDiffusionPrior.load(str(folder), HOST)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


def written(path: Path, content: dict[str, object] | Tensor) -> Path:
    if path.suffix == ".safetensors":
        assert isinstance(content, dict)
        save_file({name: values for name, values in content.items() if isinstance(values, Tensor)}, path)
    else:
        torch.save(content, path)
    return path


def vectors_of(prior: StableDiffusionPrior, path: Path, prompt: str) -> Tensor:
    """Embeddings [n, D] of a prompt's tokens, once the words are learnt by copies of a prior's networks."""
    tokenizer, encoder = copy.deepcopy((prior.tokenizer, prior.text_encoder))
    assert encoder is not None
    spell = learn_words(path, read_words(path), tokenizer, encoder)
    tokens = tokenizer(spell(prompt)).input_ids[1:-1]
    return encoder.get_input_embeddings().weight[tokens]  # type: ignore[union-attr,index,return-value]


@pytest.mark.parametrize("suffix", [".safetensors", ".bin", ".pt"])
def test_every_layout_has_its_word(plain: StableDiffusionPrior, tmp_path: Path, suffix: str) -> None:
    """AUTOMATIC1111 and ComfyUI name no word in a .safetensors file: it is called as the file is."""
    learned, file = random(3, DIM), tmp_path / f"Easy Toy{suffix}"
    layouts: list[tuple[dict[str, object], str]] = [
        ({"<Toy>": learned}, "<Toy>"),
        ({"<toy>": learned[0]}, "<toy>"),
        ({"emb_params": learned}, "Easy Toy"),
        ({"clip_l": learned}, "Easy Toy"),
    ]
    if suffix != ".safetensors":
        older = {"string_to_token": {"*": 265}, "string_to_param": {"*": learned}, "name": "Toy-1", "step": 9}
        layouts.append((older, "Toy-1"))
    for content, word in layouts:
        expected = learned[:1] if word == "<toy>" else learned
        # CLIP reads no capitals.
        for spelling in (word, word.lower(), word.upper()):
            found = vectors_of(plain, written(file, content), f"{spelling}")
            assert torch.equal(found, expected), (word, spelling)
    if suffix != ".safetensors":
        assert torch.equal(vectors_of(plain, written(file, learned), "easy toy"), learned)


def test_several_words_are_learnt_and_other_prompts_mean_what_they_did(
    folder: Path, plain: StableDiffusionPrior, tmp_path: Path
) -> None:
    file = written(tmp_path / "two.bin", {"<toy>": random(DIM), "<style>": 2 * random(2, DIM)})
    found = vectors_of(plain, file, "<toy><style>")
    assert torch.equal(found, torch.cat((random(DIM)[None], 2 * random(2, DIM))))
    prior = StableDiffusionPrior.load(str(folder), HOST, adaptations=Adaptations(words=str(file)))
    assert torch.equal(embedded(prior, ["a mug"]), embedded(plain, ["a mug"]))
    assert not torch.allclose(embedded(prior, ["a <toy> mug"]), embedded(plain, ["a <toy> mug"]), atol=1e-2)
    assert prior.fingerprint != plain.fingerprint


def test_words_that_the_prompts_lack_are_named_and_one_is_taught(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = written(tmp_path / "one.bin", {"<toy>": random(DIM)})
    two = written(tmp_path / "two.bin", {"<toy>": random(DIM), "<style>": random(DIM)})
    for file, prompts, words in (
        (
            one,
            ("a mug", ""),
            'its word <toy> is not in the prompt, as it would be with --text "a mug, <toy>".',
        ),
        (one, ("", ""), '--text "a photo of <toy>"'),
        (one, ("a mug", "<TOY>"), None),
        (two, ("a <toy>", ""), 'of which the prompt lacks <style>; --text "a <toy>, <style>"'),
        (two, ("a mug", ""), 'of which the prompt lacks <toy>, <style>; --text "a mug, <toy>"'),
        (two, ("a <style> <toy>", ""), None),
    ):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            Adaptations(words=str(file), prompts=prompts).check()
        assert (words in caplog.text) if words else not caplog.text


def test_files_that_do_not_fit_name_their_numbers(plain: StableDiffusionPrior, tmp_path: Path) -> None:
    known = sorted(plain.tokenizer.get_vocab())[100]
    nan = random(DIM)
    nan[3] = float("nan")
    for content, words in (
        ({"<toy>": random(16)}, r"has vectors of 16 numbers for <toy>; this model's text encoder has 12\."),
        ({"<toy>": random(768)}, "768 numbers for <toy>, as Stable Diffusion 1 has; this model's"),
        (
            {"clip_l": random(2, DIM), "clip_g": random(2, 16)},
            r"is of Stable Diffusion XL, with vectors of 16 \(clip_g\) and 12 \(clip_l\) numbers",
        ),
        ({"<toy>": random(ROOM + 1, DIM)}, "has 15 vectors for <toy>, but a prompt has room for 14 tokens"),
        ({known: random(DIM)}, "which the model's tokenizer has already"),
        ({"<a>": random(2, DIM), "<a>_1": random(DIM)}, "has the word <a>_1, which"),
        ({"<a>": random(DIM), "<A>": random(DIM)}, "words that differ only in capitals"),
        ({"<a>": random(DIM), "emb_params": random(DIM)}, "has 2 tensors, of which emb_params has no word"),
        ({"<toy>": random(2, 2, DIM)}, r"tensor <toy> of shape \[2, 2, 12\], but a word's vectors must be"),
        ({"<toy>": torch.zeros(())}, r"tensor <toy> of shape \[\], but"),
        ({"<toy>": nan}, "cannot be read: its tensor <toy> has 1 of 12 numbers that are NaN or infinite"),
        (
            {"lora_unet_x.lora_up.weight": random(2, DIM)},
            "holds no word but weights such as lora_unet_x.*LoRA_path",
        ),
        ({" ": random(DIM)}, "has the word ' ', which nobody can write"),
        ({"<\n>": random(DIM)}, r"its tensor '<\\n>' has a name too long or not printable"),
    ):
        for suffix in (".safetensors", ".bin"):
            file = written(tmp_path / f"x{suffix}", content)
            with pytest.raises(
                PriorError, match=f"^textual_inversion_path '.*/x{suffix}' .*{words}"
            ) as caught:
                vectors_of(plain, file, "a mug")
            assert "\n" not in str(caught.value)
    for unnamed in ({"step": 3}, [random(DIM)]):
        torch.save(unnamed, tmp_path / "x.bin")
        with pytest.raises(
            PriorError, match=r"textual_inversion_path .* (holds no word|cannot be read: it holds a list)"
        ):
            read_words(tmp_path / "x.bin")
