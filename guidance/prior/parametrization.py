"""What a network predicts and from which noise levels, by its scheduler, a single file's own marks, and the user."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from guidance.prior.family import SCHEDULER_CONFIG, flow_shift
from guidance.prior.libraries import in_short
from guidance.prior.model_files import PriorError
from guidance.prior.single_file import Header
from guidance.schedule import Schedule

logger = logging.getLogger(__name__)

SPELLINGS = {
    "epsilon": ("epsilon", "eps", "noise"),
    "v_prediction": ("v_prediction", "v-prediction", "v", "v_pred", "vpred", "velocity"),
}
"""`prediction_type` -> how files spell it."""
KEYS = ("modelspec.prediction_type", "modelspec.predict_key")
"""Metadata of a single file that name what it predicts (the model specification, and ComfyUI's)."""


@dataclass(frozen=True)
class Parametrization:
    """Meaning of a network's answers.

    Attributes:
        prediction_type: a key of `guidance.prediction.KINDS`.
        schedule: the noise levels that it knows.
    """

    prediction_type: str
    schedule: Schedule


def parametrization_of(
    model_key: str, settings: Path, header: Header | None, wanted: str | None
) -> Parametrization:
    """Find out what a network predicts, and report it where it is not the scheduler's file alone that names it.

    Args:
        settings: the folder with the scheduler's file.
        header: of the single file, None for a folder.
        wanted: the user's own word, which wins.
    Raises: PriorError, one sentence.
    """
    stated = json.loads((settings / SCHEDULER_CONFIG).read_text(encoding="utf-8"))
    if (shift := flow_shift(stated)) is not None:
        if wanted is not None:
            raise PriorError(
                f"--prediction_type is {wanted}, but model_key '{model_key}' is of a flow by its {SCHEDULER_CONFIG}: leave it out."
            )
        return Parametrization("flow", Schedule.flow(shift, int(stated.get("num_train_timesteps", 1000))))
    kind, source = stated.get("prediction_type", "epsilon"), f"{settings / SCHEDULER_CONFIG}"
    zero, zero_source = bool(stated.get("rescale_betas_zero_snr", False)), ""
    if header is not None:
        kind, source = _marked(model_key, header, wanted) or (kind, source)
        zero_source = _zero_snr(header)
    if wanted is not None:
        kind, source = wanted, "--prediction_type"
    if header is not None or wanted is not None:
        ends = f", with zero terminal SNR (from {zero_source})" if zero_source else ""
        logger.warning("model_key '%s' is read as %s (from %s)%s.", model_key, kind, source, ends)
    zero = zero or bool(zero_source)
    return Parametrization(kind, _diffusion(model_key, settings, kind, zero))


def _diffusion(model_key: str, settings: Path, kind: str, zero: bool) -> Schedule:
    """Read the noise levels of diffusion. zero: they are to end without signal."""
    from diffusers import DDIMScheduler

    try:
        scheduler = DDIMScheduler.from_pretrained(
            settings,
            subfolder="scheduler",
            local_files_only=True,
            rescale_betas_zero_snr=zero,
        )
    except Exception as error:  # whatever a configuration makes the library run into
        raise PriorError(
            f"model_key '{model_key}' has a {SCHEDULER_CONFIG} that cannot be read ({in_short(error)})."
        ) from error
    # Of the spacings of diffusers, only this one begins at the offset.
    leading = scheduler.config.timestep_spacing == "leading"
    offset = scheduler.config.steps_offset if leading else 0
    return Schedule.diffusion(_usable(model_key, scheduler.alphas_cumprod, kind), offset)


def _marked(model_key: str, header: Header, wanted: str | None) -> tuple[str, str] | None:
    """Return what a single file predicts by its own marks, and which mark that is; None without one.

    Raises: PriorError for a kind that is not known here, unless the user has named one.
    """
    if "v_pred" in header.shapes:
        return "v_prediction", "its tensor v_pred"
    for key in KEYS:
        word = header.metadata.get(key, "").lower()
        if not word:
            continue
        for kind, spellings in SPELLINGS.items():
            if word in spellings:
                return kind, f"its metadata {key}"
        if wanted is None:
            raise PriorError(
                f"model_key '{model_key}' has the metadata {key} '{word}', which is neither epsilon nor v: "
                "--prediction_type names one of these, if it is."
            )
    word = header.metadata.get("ss_v_parameterization", "").lower()
    if word in ("true", "false"):
        return ("v_prediction" if word == "true" else "epsilon"), "its metadata ss_v_parameterization"
    return None


def _zero_snr(header: Header) -> str:
    """Name the mark by which a single file's noise levels end at zero signal; blank without one."""
    if "ztsnr" in header.shapes:
        return "its tensor ztsnr"
    if header.metadata.get("ss_zero_terminal_snr", "").lower() == "true":
        return "its metadata ss_zero_terminal_snr"
    return ""


def _usable(model_key: str, alphas_cumprod: Tensor, prediction_type: str) -> Tensor:
    """Noise levels at which a prediction gives the clean sample: eps does not where no signal is left."""
    signal = alphas_cumprod > 0
    if prediction_type != "epsilon" or bool(signal.all()):
        return alphas_cumprod
    logger.warning(
        "model_key '%s' predicts epsilon but its noise levels end without signal, where that gives no image: the last "
        "level with signal stands there, and --prediction_type v_prediction is right for a model of v.",
        model_key,
    )
    return alphas_cumprod.where(signal, alphas_cumprod[signal].min())
