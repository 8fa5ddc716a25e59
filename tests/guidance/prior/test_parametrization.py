"""What a network predicts: by the scheduler's file, a single file's own marks, and the user."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file, save_file

from guidance.prediction import KINDS
from guidance.prior import PriorError, StableDiffusionPrior
from guidance.prior.parametrization import parametrization_of
from tests.guidance.prior.texts import abar_of, embedded, noise_by
from utils.device import resolve_device

HOST = resolve_device("cpu")
Z, T = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([100, 999])


def assert_predicts(prior: StableDiffusionPrior, kind: str, *, zero_snr: bool) -> None:
    """Check by what a prior answers, not by what it calls it."""
    cond = embedded(prior, ["a", "b"])
    with torch.no_grad():
        output = prior.unet(Z, T, encoder_hidden_states=cond).sample
        eps = noise_by(prior, Z, T, cond)
    expected = KINDS[kind](Z, output, T, prior.schedule).eps
    torch.testing.assert_close(eps, expected)
    assert (float(abar_of(prior)[-1]) == 0) == zero_snr


@pytest.mark.parametrize(
    ("marks", "metadata", "kind", "zero_snr", "source"),
    [
        ([], {}, "epsilon", False, "scheduler_config.json"),
        (["v_pred"], {}, "v_prediction", False, "its tensor v_pred"),
        (["v_pred", "ztsnr"], {}, "v_prediction", True, "its tensor ztsnr"),
        ([], {"modelspec.prediction_type": "v"}, "v_prediction", False, "metadata modelspec.prediction_type"),
        ([], {"modelspec.predict_key": "v"}, "v_prediction", False, "metadata modelspec.predict_key"),
        ([], {"ss_v_parameterization": "True", "ss_zero_terminal_snr": "True"}, "v_prediction", True, "ss_zero"),
        ([], {"modelspec.prediction_type": "epsilon"}, "epsilon", False, "modelspec.prediction_type"),
    ],
)  # fmt: skip
def test_marks_of_a_single_file(
    folder: Path,
    single: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    marks: list[str],
    metadata: dict[str, str],
    kind: str,
    zero_snr: bool,
    source: str,
) -> None:
    """Tensors of ComfyUI and Forge, the model specification's metadata and kohya's, each reported in one line."""
    path = tmp_path / "marked.safetensors"
    save_file({**load_file(single), **{name: torch.zeros(0) for name in marks}}, path, metadata=metadata)
    prior = StableDiffusionPrior.load(str(path), HOST, base_model_key=str(folder))
    [line] = caplog.messages
    assert f"is read as {kind}" in line
    assert source in line
    assert ("zero terminal SNR" in line) == zero_snr
    assert_predicts(prior, kind, zero_snr=zero_snr)
    caplog.clear()
    other = "epsilon" if kind == "v_prediction" else "v_prediction"
    prior = StableDiffusionPrior.load(str(path), HOST, base_model_key=str(folder), prediction_type=other)
    assert f"is read as {other} (from --prediction_type)" in caplog.text
    assert_predicts(prior, other, zero_snr=zero_snr and other == "v_prediction")


def test_an_unknown_mark_needs_the_user(folder: Path, single: Path, tmp_path: Path) -> None:
    path = tmp_path / "marked.safetensors"
    save_file(load_file(single), path, metadata={"modelspec.prediction_type": "flow"})
    with pytest.raises(
        PriorError, match=r"metadata modelspec\.prediction_type 'flow'.* --prediction_type names"
    ):
        StableDiffusionPrior.load(str(path), HOST, base_model_key=str(folder))
    StableDiffusionPrior.load(str(path), HOST, base_model_key=str(folder), prediction_type="epsilon")


def test_a_folder_of_zero_terminal_snr(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """v goes up to the end; eps ends at the last level with signal, in one line that names the way out."""
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    path = copy / "scheduler" / "scheduler_config.json"
    changes = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    v = StableDiffusionPrior.load(str(copy), HOST)
    assert not caplog.messages
    assert_predicts(v, "v_prediction", zero_snr=True)
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "epsilon"}))
    eps = StableDiffusionPrior.load(str(copy), HOST)
    [line] = caplog.messages
    assert "--prediction_type v_prediction" in line
    assert_predicts(eps, "epsilon", zero_snr=False)
    assert torch.equal(abar_of(eps)[:-1], abar_of(v)[:-1])
    assert abar_of(eps)[-1] == abar_of(v)[-2] > 0


@pytest.mark.parametrize(
    ("changes", "offset"),
    [
        ({}, 1),
        ({"steps_offset": 0}, 0),
        ({"steps_offset": ...}, 0),
        ({"timestep_spacing": "trailing"}, 0),
        ({"timestep_spacing": "linspace"}, 0),
    ],
)
def test_times_begin_where_the_scheduler_begins(
    folder: Path, tmp_path: Path, changes: dict[str, object], offset: int
) -> None:
    """The prior's offset is diffusers' first time of all; a key that is `...` is missing."""
    path = tmp_path / "scheduler" / "scheduler_config.json"
    shutil.copytree(folder / "scheduler", path.parent)
    stated = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in stated.items() if value is not ...}))
    scheduler = DDIMScheduler.from_pretrained(path.parent)
    scheduler.set_timesteps(1000)
    assert (
        parametrization_of("tiny", tmp_path, None, None).schedule.steps_offset
        == offset
        == int(scheduler.timesteps[-1])
    )


def test_a_single_file_begins_where_its_base_does(folder: Path, single: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(folder, tmp_path / "base"))
    path = base / "scheduler" / "scheduler_config.json"
    for offset in (1, 0):
        path.write_text(json.dumps({**json.loads(path.read_text()), "steps_offset": offset}))
        prior = StableDiffusionPrior.load(str(single), HOST, base_model_key=str(base))
        assert prior.schedule.steps_offset == offset


@pytest.mark.parametrize(
    "stated",
    [
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
        {
            "_class_name": "DPMSolverMultistepScheduler",
            "prediction_type": "flow_prediction",
            "use_flow_sigmas": True,
            "flow_shift": 3.0,
        },
    ],
)
def test_a_flow_by_its_scheduler_s_file(tmp_path: Path, stated: dict[str, object]) -> None:
    """Both of diffusers' spellings, whose own scheduler has the same levels and hands the network the same times."""
    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(stated))
    found = parametrization_of("tiny", tmp_path, None, None)
    scheduler = getattr(diffusers, str(stated["_class_name"])).from_pretrained(path.parent)
    if "use_flow_sigmas" in stated:
        scheduler.set_timesteps(20)
    assert found.prediction_type == "flow"
    told = found.schedule.told(torch.arange(1001))
    nearest = (told[None] - scheduler.timesteps[:, None].float()).abs().min(dim=1)
    assert float(nearest.values.max()) <= (1.5 if "use_flow_sigmas" in stated else 1e-3)
    sigma = found.schedule.sigma(nearest.indices).float()
    torch.testing.assert_close(sigma, scheduler.sigmas[: len(sigma)].float(), atol=2e-3, rtol=0)
    with pytest.raises(PriorError, match=r"--prediction_type is epsilon, .*of a flow"):
        parametrization_of("tiny", tmp_path, None, "epsilon")
