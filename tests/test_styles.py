"""Files in the styles of the repositories that users come from: each runs unmodified, with its own guidance."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import config as configuration
from guidance.prior import StableDiffusionPrior
from tests.lora import lora
from train import train
from utils.device import resolve_device

STYLES = Path(__file__).parent / "config" / "styles"
START = "--init_shape sphere --init_num_pts 1000 "  # the files themselves name Point-E, which takes seconds
SMALL = START + (
    "--device auto --model_key toybox --image_w 64 --image_h 64 "
    "--C_batch_size 1 --iterations 3 --vis_interval 3 --test_ratio 1 --save_video false --save_process false --quiet"
)


def logged(style: str, method: str, *flags: str) -> dict[str, float]:
    """Run three iterations of a style's file and return the scalars that they log in the end."""
    argv = ["--opt", str(STYLES / f"{style}.yaml"), "--guidance_type", method, *SMALL.split(), *flags]
    result = train(configuration.load(argv))
    for name, parameter in result.gaussians.raw().items():
        assert bool(torch.isfinite(parameter).all()), name
    events = EventAccumulator(str(result.run.root)).Reload()
    return {name: events.Scalars(name)[-1].value for name in events.Tags()["scalars"]}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_luciddreamer(caplog: pytest.LogCaptureFixture) -> None:
    # All views from the front, where both of Perp-Neg's negatives count: one more evaluation each.
    narrow = ["--phi_range", "-45", "-44", "--max_t_range", "0.5", "--delta_t_start", "80"]
    for folder in ("lora", "embeddings"):
        Path(folder).mkdir()
    prior = StableDiffusionPrior.load("toybox", resolve_device("cpu"))
    save_file(lora(prior), "lora/step_1000.safetensors")
    torch.save({"<toy>": torch.randn(prior.text_encoder.config.hidden_size)}, "embeddings/learned_embeds.bin")
    with caplog.at_level(logging.WARNING):
        values = logged("luciddreamer", "ism", *narrow)
    warning = next(message for message in caplog.messages if "without effect" in message)
    assert "LoRA_path" not in warning
    assert "textual_inversion_path" not in warning
    plain = logged("luciddreamer", "ism", *narrow, "--perpneg", "false")
    assert values["guidance/t"] - values["guidance/s"] <= 100
    assert values["guidance/unet_evals_per_view"] == plain["guidance/unet_evals_per_view"] + 2


def test_gcs_beg() -> None:
    early = ["--start_reset_iter", "0", "--lgt_thresh", "0.3"]
    values = logged("gcs-beg", "gcs", *early)
    assert values["run/times_dimmed"] == 3
    assert values["guidance/e"] < values["guidance/s"] < values["guidance/t"]
    assert min(values[f"guidance/grad_norm_{part}"] for part in ("cc", "cg", "pixels")) > 0
    without = logged("gcs-beg", "gcs", *early, "--w_cp", "0", "--w_cc", "0", "--BEG", "false")
    assert not {"run/times_dimmed", "guidance/grad_norm_pixels", "guidance/grad_norm_cc"} & set(without)
    assert without["guidance/unet_evals_per_view"] < values["guidance/unet_evals_per_view"]


def test_segmentdreamer(caplog: pytest.LogCaptureFixture) -> None:
    values = logged("segmentdreamer", "sctd")
    assert values["guidance/s_m"] <= values["guidance/s"] < values["guidance/t"]
    # With a negative prompt: 5 where the trajectory takes two steps, else 4.
    assert 4 <= values["guidance/unet_evals_per_view"] <= 5
    assert "sctd_variant" not in "".join(line for line in caplog.messages if "without effect" in line)
    released = logged("segmentdreamer", "sctd", "--sctd_variant", "released", "--w_cp", "0.1")
    assert released["guidance/unet_evals_per_view"] >= 4 + 2
    assert released["guidance/grad_norm_pixels"] > 0


@pytest.mark.thorough
def test_segmentdreamer_from_point_e() -> None:
    """The start is as the file has it, from toybox's Point-E."""
    assert logged("segmentdreamer", "sctd", "--init_shape", "pointe")["run/gaussians"] == 1000


def test_the_other_methods_run_with_the_same_file() -> None:
    for method in ("sds", "cds"):
        values = logged("segmentdreamer", method)
        assert values["guidance/grad_norm"] > 0
