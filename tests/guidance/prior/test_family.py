"""Models that cannot guide are recognised by their small files and headers, before anything is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from guidance.prior import PriorError, StableDiffusionPrior
from guidance.prior.family import PIPELINES
from guidance.prior.model_files import find_model, find_single_file
from guidance.prior.single_file import header_of
from utils.device import resolve_device

HOST = resolve_device("cpu")
UNET, TEXT, VAE = "unet/config.json", "text_encoder/config.json", "vae/config.json"
SCHEDULER, INDEX, TOKENIZER = (
    "scheduler/scheduler_config.json",
    "model_index.json",
    "tokenizer/tokenizer.json",
)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy of the folder to change, without weights: none are needed to tell."""
    kept = shutil.ignore_patterns("*.safetensors")
    return Path(shutil.copytree(folder, tmp_path / "model", ignore=kept))


def change(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def sentence_on(folder: Path) -> str:
    with pytest.raises(PriorError) as error:
        find_model(str(folder), half=False)
    sentence = str(error.value)
    assert sentence.startswith(f"model_key '{folder}' ")
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert ". " not in sentence
    return sentence


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        (UNET, {"in_channels": 9}, "is an inpainting model|takes 9 channels|sd2-community"),
        (UNET, {"in_channels": 8}, "is InstructPix2Pix|takes 8"),
        (UNET, {"in_channels": 5}, "is a depth-to-image model|takes 5"),
        (UNET, {"in_channels": 7, "num_class_embeds": 1000}, "is an upscaler|class labels"),
        (UNET, {"out_channels": 8}, "predicts a variance|gives 8"),
        (UNET, {"out_channels": 3}, "takes 4 channels and gives 3"),
        (UNET, {"in_channels": 16, "out_channels": 16}, "latents have 4 channels|takes 16"),
        (UNET, {"in_channels": "4"}, "in_channels '4' in unet/config.json|whole number"),
        (UNET, {"addition_embed_type": "text_time"}, "is Stable Diffusion XL|text_time"),
        (UNET, {"addition_embed_type": "image"}, "is Kandinsky"),
        (UNET, {"addition_embed_type": "text"}, "is DeepFloyd IF"),
        (UNET, {"time_cond_proj_dim": 256}, "is a latent consistency model|no classifier-free guidance"),
        (UNET, {"class_embed_type": "projection"}, "is unCLIP|'projection'"),
        (UNET, {"num_class_embeds": 10}, "class labels|10"),
        (UNET, {"encoder_hid_dim_type": "text_proj"}, "encoder_hid_dim"),
        (UNET, {"_class_name": "UNet3DConditionModel"}, "is another kind of model|UNet3DConditionModel"),
        (UNET, {"sample_size": None}, "sample_size None|width of the latents"),
        (UNET, {"cross_attention_dim": 1024}, "width 1024 (as Stable Diffusion 2)|writes width 12"),
        (TEXT, {"hidden_size": 768}, "width 12|width 768 (as Stable Diffusion 1)"),
        (TEXT, {"model_type": "t5"}, "text encoder is a t5"),
        (TEXT, {"vocab_size": 513}, "tokenizer of 514 tokens|knows 513|--textual_inversion_path"),
        (TOKENIZER, {"added_tokens": [{"id": 599, "content": "<cat>"}]}, "tokenizer of 600 tokens|knows 514"),
        (VAE, {"latent_channels": 16}, "latents have 16 channels|takes 4"),
        (VAE, {"_class_name": "AutoencoderTiny"}, "a AutoencoderTiny in vae/"),
        (SCHEDULER, {"beta_schedule": "sigmoid"}, "beta_schedule 'sigmoid'|scaled_linear"),
        (SCHEDULER, {"beta_schedule": None}, "no beta_schedule|DDIMScheduler"),
        (SCHEDULER, {"beta_start": None}, "beta_start None|a number above 0"),
        (SCHEDULER, {"trained_betas": [0.1, "x"]}, "trained_betas|no list of numbers"),
        (SCHEDULER, {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 0}, "shift 0 |above 0"),
        (
            SCHEDULER,
            {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True},
            "use_dynamic_shifting|shift of its own",
        ),
        (SCHEDULER, {"steps_offset": 50}, "steps_offset 50|whole number from 0 to 10|is 1"),
        (SCHEDULER, {"steps_offset": "one"}, "steps_offset 'one'|whole number from 0 to 10"),
        (SCHEDULER, {"prediction_type": "edm"}, "'edm'|must be epsilon, v_prediction, sample"),
        (INDEX, {"text_encoder_2": ["transformers", "X"]}, "is Stable Diffusion XL|text_encoder_2"),
        *[(INDEX, {"_class_name": f"{start}Pipeline"}, f"is {what}") for start, what in PIPELINES.items()],
    ],
)
def test_what_a_folder_is(copy: Path, name: str, changes: dict[str, Any], words: str) -> None:
    change(copy, name, **changes)
    sentence = sentence_on(copy)
    assert [part for part in words.split("|") if part not in sentence] == [], sentence


def test_older_tokenizers_are_counted_too(copy: Path) -> None:
    """A vocabulary, and words added beside it, in the two places where they were kept."""
    vocabulary = json.loads((copy / TOKENIZER).read_text())["model"]["vocab"]
    (copy / TOKENIZER).unlink()
    (copy / "tokenizer" / "vocab.json").write_text(json.dumps(vocabulary))
    (copy / "tokenizer" / "merges.txt").touch()
    assert "lacks unet/diffusion_pytorch_model.safetensors" in sentence_on(copy)
    (copy / "tokenizer" / "added_tokens.json").write_text('{"<cat>": 514}')
    assert "tokenizer of 515 tokens" in sentence_on(copy)
    change(copy, "tokenizer/tokenizer_config.json", added_tokens_decoder={"520": {"content": "<dog>"}})
    assert "tokenizer of 521 tokens" in sentence_on(copy)


def test_a_transformer_in_place_of_the_unet(copy: Path) -> None:
    (copy / "unet").rename(copy / "transformer")
    assert "its network is a transformer in place of a U-Net" in sentence_on(copy)


@pytest.mark.parametrize("name", [UNET, TEXT, VAE, SCHEDULER, INDEX, TOKENIZER])
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_broken_json(copy: Path, name: str, content: bytes) -> None:
    (copy / name).write_bytes(content)
    assert f"has a {name} that " in sentence_on(copy)


def test_the_base_of_a_single_file_is_looked_at_too(copy: Path, single: Path) -> None:
    change(copy, UNET, in_channels=9)
    with pytest.raises(PriorError, match=f"base_model_key '{copy}' is an inpainting model"):
        find_single_file(str(single), str(copy))


PREFIX = "model.diffusion_model."


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({f"{PREFIX}input_blocks.0.0.weight": (8, 9, 3, 3)}, "is an inpainting model|takes 9 channels"),
        ({f"{PREFIX}out.2.weight": (8, 8, 3, 3)}, "takes 4 channels and gives 8"),
        ({f"{PREFIX}label_emb.0.0.weight": (8, 8)}, "is unCLIP"),
        ({"conditioner.embedders.0.x": (1,)}, "is Stable Diffusion XL"),
        ({f"{PREFIX}joint_blocks.0.x": (1,)}, "is Stable Diffusion 3"),
        ({f"{PREFIX}double_blocks.0.x": (1,)}, "is FLUX"),
        ({f"{PREFIX}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (8, 1024)}, "as Stable Diffusion 2|of base"),
        ({"lora_unet_down.lora_up.weight": (1,)}, "is a LoRA|--LoRA_path"),
        ({"only": "encoder.a decoder.b"}, "is an autoencoder (VAE) alone"),
        ({"only": "down_blocks.a up_blocks.b conv_in.c"}, "is a U-Net alone"),
        ({"only": "emb_params"}, "is a textual inversion|--textual_inversion_path"),
        ({"only": f"{PREFIX}layers.0"}, "are no U-Net of Stable Diffusion"),
    ],
)  # fmt: skip
def test_what_a_single_file_is(
    folder: Path, single: Path, tmp_path: Path, tensors: dict[str, Any], words: str
) -> None:
    stored = {} if "only" in tensors else load_file(single)
    shapes = dict.fromkeys(tensors["only"].split(), (1,)) if "only" in tensors else tensors
    if f"{PREFIX}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight" in tensors:
        stored = {name: values for name, values in stored.items() if not name.endswith("attn2.to_k.weight")}
    path = tmp_path / "file.safetensors"
    save_file({**stored, **{name: torch.zeros(shape) for name, shape in shapes.items()}}, path)
    with pytest.raises(PriorError) as error:
        StableDiffusionPrior.load(str(path), HOST, base_model_key=str(folder))
    sentence = str(error.value)
    assert [part for part in words.split("|") if part not in sentence] == [], sentence


def test_a_damaged_single_file(folder: Path, single: Path, tmp_path: Path) -> None:
    for size in (0, 100):
        path = tmp_path / "cut.safetensors"
        path.write_bytes(single.read_bytes()[:size])
        file = find_single_file(str(path), str(folder))
        assert file is not None
        with pytest.raises(PriorError, match=r"cut\.safetensors' cannot be read as \.safetensors"):
            header_of(str(path), file)
