"""Single files, LoRA, textual inversions and layers left out, on tiny random networks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import config as configuration
from guidance.prior import PriorError, StableDiffusionPrior, load_prior
from guidance.prior.adaptations import Adaptations
from tests.guidance.prior.texts import embedded, noise_by
from tests.ldm import write_single_file
from tests.lora import changes, kohya, lora
from utils.device import resolve_device

HOST = resolve_device("cpu")


@pytest.fixture(scope="module")
def plain(folder: Path) -> StableDiffusionPrior:
    return StableDiffusionPrior.load(str(folder), HOST)


def predicted(prior: StableDiffusionPrior, prompt: str = "a mug") -> Tensor:
    z = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return noise_by(prior, z, torch.tensor([300]), embedded(prior, [prompt]))


def test_a_single_file_is_the_folder_that_it_was_made_of(
    folder: Path, plain: StableDiffusionPrior, tmp_path: Path
) -> None:
    file = write_single_file(folder, tmp_path / "all.safetensors")
    prior = StableDiffusionPrior.load(str(file), HOST, base_model_key=str(folder))
    for name in ("unet", "vae", "text_encoder"):
        ours, theirs = getattr(prior, name).state_dict(), getattr(plain, name).state_dict()
        assert set(ours) == set(theirs)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
    torch.testing.assert_close(predicted(prior), predicted(plain), rtol=1e-4, atol=1e-6)
    assert len(prior.fingerprint) == 64
    assert prior.fingerprint != plain.fingerprint


def test_a_single_file_says_what_it_lacks(folder: Path, tmp_path: Path) -> None:
    file = write_single_file(folder, tmp_path / "all.safetensors")
    with pytest.raises(PriorError, match="base_model_key must say what it was made from"):
        StableDiffusionPrior.load(str(file), HOST)
    with pytest.raises(PriorError, match="base_model_key '/nowhere/at/all' is neither a folder here nor"):
        StableDiffusionPrior.load(str(file), HOST, base_model_key="/nowhere/at/all")
    (tmp_path / "old.ckpt").touch()
    with pytest.raises(PriorError, match=r"must be \.safetensors"):
        StableDiffusionPrior.load(str(tmp_path / "old.ckpt"), HOST, base_model_key=str(folder))
    save_file({"something": torch.zeros(1)}, tmp_path / "else.safetensors")
    with pytest.raises(PriorError, match="is no Stable Diffusion like that of"):
        StableDiffusionPrior.load(str(tmp_path / "else.safetensors"), HOST, base_model_key=str(folder))


@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("layout", ["peft", "kohya", "kohya, U-Net only", "kohya, text encoder only"])
def test_a_lora_adds_its_product_to_the_weights(
    folder: Path, plain: StableDiffusionPrior, tmp_path: Path, layout: str, scale: float
) -> None:
    """Files in kohya's layout have ranks and alphas of each module's own."""
    low = lora(plain)
    file, added = (low, changes(low)) if layout == "peft" else kohya(low)
    if "only" in layout:
        prefix, name = ("lora_unet", "unet") if "U-Net" in layout else ("lora_te", "text_encoder")
        file = {key: values for key, values in file.items() if key.startswith(prefix)}
        added = {key: values for key, values in added.items() if key.startswith(name)}
    save_file(file, tmp_path / "lora.safetensors")
    given = Adaptations(lora=str(tmp_path / "lora.safetensors"), lora_scale=scale)
    prior = StableDiffusionPrior.load(str(folder), HOST, adaptations=given)
    for prefix in ("unet", "text_encoder"):
        before, after = getattr(plain, prefix).state_dict(), getattr(prior, prefix).state_dict()
        assert set(before) == set(after)
        for key, weight in after.items():
            change = scale * added.get(f"{prefix}.{key}", torch.zeros(()))
            torch.testing.assert_close(weight, before[key] + change, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(predicted(prior), predicted(plain), atol=1e-3)
    assert prior.fingerprint != plain.fingerprint
    assert not any(parameter.requires_grad for parameter in prior.unet.parameters())


@pytest.mark.parametrize(
    "part",
    ["unet.conv_out.weight", "vae.decoder.conv_in.bias", "text_encoder.encoder.layers.1.mlp.fc1.weight"],
)
def test_a_weight_that_a_single_file_has_not_does_not_stay_random(
    folder: Path, tmp_path: Path, part: str
) -> None:
    theirs = {
        "unet.conv_out.weight": "model.diffusion_model.out.2.weight",
        "vae.decoder.conv_in.bias": "first_stage_model.decoder.conv_in.bias",
        "text_encoder.encoder.layers.1.mlp.fc1.weight": "cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc1.weight",
    }
    tensors = load_file(write_single_file(folder, tmp_path / "all.safetensors"))
    del tensors[theirs[part]]
    save_file(tensors, tmp_path / "most.safetensors")
    with pytest.raises(PriorError) as caught:
        StableDiffusionPrior.load(str(tmp_path / "most.safetensors"), HOST, base_model_key=str(folder))
    assert str(caught.value).endswith(f"(it lacks 1 of its weights, such as {part}).")


class Harmful:
    """Pickle that makes a folder when it is read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("harmed",)


@pytest.mark.parametrize(("key", "name"), [("lora", "LoRA_path"), ("words", "textual_inversion_path")])
def test_files_that_are_not_there_or_may_hold_programs_are_refused(
    folder: Path, tmp_path: Path, key: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"<toy>": Harmful()}, tmp_path / "x.bin")
    (tmp_path / "x.txt").touch()
    (tmp_path / "x.safetensors").write_bytes(b"nonsense")
    for file, words in (
        ("gone.safetensors", "there is no such file"),
        ("x.bin", "cannot be read: it holds more than tensors"),
        ("x.txt", "must be a file of weights"),
        ("x.safetensors", "cannot be read"),
    ):
        with pytest.raises(PriorError, match=f"{name} .*{words}") as caught:
            StableDiffusionPrior.load(
                str(folder), HOST, adaptations=Adaptations(**{key: str(tmp_path / file)})
            )
        assert "\n" not in str(caught.value)
    assert not Path("harmed").exists()


def test_what_is_missing_is_told_before_the_networks_are_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guidance.prior.stable_diffusion.read_networks", None)
    with pytest.raises(PriorError, match=r"LoRA_path is 'gone\.safetensors', but there is no such file"):
        StableDiffusionPrior.load(str(folder), HOST, adaptations=Adaptations(lora="gone.safetensors"))


def test_clip_skip_counts_layers_as_web_uis_do(
    folder: Path, plain: StableDiffusionPrior, caplog: pytest.LogCaptureFixture
) -> None:
    """This encoder has two layers: 2 reads the first, and 1 the last."""
    last = StableDiffusionPrior.load(str(folder), HOST, adaptations=Adaptations(clip_skip=1))
    assert torch.equal(embedded(last, ["a mug"]), embedded(plain, ["a mug"]))
    assert "clip_skip" not in caplog.text
    prior = StableDiffusionPrior.load(str(folder), HOST, adaptations=Adaptations(clip_skip=2))
    assert "clip_skip 2 leaves out the last 1 of the text encoder's 2 layers." in caplog.messages
    encoder = prior.text_encoder
    tokens = prior.tokenizer(["a mug"], padding="max_length", max_length=16, return_tensors="pt").input_ids
    with torch.no_grad():
        mask = torch.full((16, 16), float("-inf")).triu(1)[None, None]
        hidden = encoder.encoder.layers[0](encoder.embeddings(tokens), attention_mask=mask)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        expected = encoder.final_layer_norm(hidden)
    torch.testing.assert_close(embedded(prior, ["a mug"]), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(embedded(prior, ["a mug"]), embedded(plain, ["a mug"]), atol=1e-3)
    with pytest.raises(PriorError, match="clip_skip is 3, but must be at most 2, the number of layers"):
        StableDiffusionPrior.load(str(folder), HOST, adaptations=Adaptations(clip_skip=3))


@pytest.mark.parametrize(
    ("key", "counted"),
    [("null", None), ("0", None), ("1", None), ("2", "clip_skip 2 leaves out the last 1 of")],
)
def test_what_the_key_clip_skip_leaves_out(
    key: str, counted: str | None, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_prior(
        configuration.load(
            ["--text", "a mug", "--fast", "false", "--model_key", str(folder), "--clip_skip", key]
        ),
        HOST,
    )
    lines = [line for line in caplog.messages if "clip_skip" in line]
    assert [line[: len(counted or "")] for line in lines] == ([counted] if counted else [])
