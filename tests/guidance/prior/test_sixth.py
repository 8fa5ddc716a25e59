"""The new prior of docs/extending.md: its very text, on a tiny model that diffusers saved."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers

import config as configuration
from guidance.prior import load_prior
from guidance.prior.families import FAMILIES
from tests.guidance.prior.tiny_families import SIDE, autoencoder, byte_tokenizer
from utils.device import HOST

PAGE = Path(__file__).parents[3] / "docs" / "extending.md"


def pixart() -> Any:
    torch.manual_seed(0)
    return diffusers.PixArtSigmaPipeline(
        tokenizer=byte_tokenizer(),
        text_encoder=transformers.T5EncoderModel(
            transformers.T5Config(
                vocab_size=300,
                d_model=8,
                d_kv=4,
                d_ff=8,
                num_layers=1,
                num_heads=2,
                tie_word_embeddings=False,
            )
        ),
        vae=autoencoder(),
        transformer=diffusers.PixArtTransformer2DModel(
            sample_size=16,
            num_layers=1,
            num_attention_heads=2,
            attention_head_dim=4,
            in_channels=4,
            out_channels=8,
            cross_attention_dim=8,
            caption_channels=8,
        ),
        scheduler=diffusers.DPMSolverMultistepScheduler(
            beta_schedule="linear", beta_start=1e-4, beta_end=0.02
        ),
    )


def test_a_sixth_prior_is_an_adapter_of_60_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [code] = re.findall(r"<!-- prior example -->\n```python\n(.*?)```", PAGE.read_text(), re.S)
    assert code.count("\n") <= 60
    space: dict[str, Any] = {"__name__": "guidance.prior.pixart"}
    exec(compile(code, PAGE.name, "exec"), space)
    adapter = space["PixArtSigma"]
    monkeypatch.setitem(FAMILIES, adapter.pipeline, adapter)
    pixart().save_pretrained(tmp_path / "model")
    flags = [
        "--model_key",
        str(tmp_path / "model"),
        "--text",
        "a mug",
        "--fast",
        "false",
        "--embeddings",
        str(tmp_path),
    ]
    prior = load_prior(configuration.load(flags), HOST)
    assert prior.image_size == SIDE
    z, t = torch.randn(1, *prior.latents), torch.tensor([500])
    with torch.no_grad():
        found = prior.predict(z, t, prior.embed(["a mug"]))
    pipeline: Any = diffusers.PixArtSigmaPipeline.from_pretrained(tmp_path / "model")
    text, mask, *_ = pipeline.encode_prompt("a mug", do_classifier_free_guidance=False)
    more = {"resolution": None, "aspect_ratio": None}
    with torch.no_grad():
        expected = pipeline.transformer(
            z, text, encoder_attention_mask=mask, timestep=t, added_cond_kwargs=more
        ).sample[:, :4]
    torch.testing.assert_close(found.eps, expected)
    abar = pipeline.scheduler.alphas_cumprod[500]
    torch.testing.assert_close(abar.sqrt() * found.clean + (1 - abar).sqrt() * found.eps, z)
