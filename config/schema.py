"""The typed configuration: five sections as in the YAML files, and the keys of the run itself.

Attribute names are the YAML keys. Every model is frozen; defaults are those of SegmentDreamer, LucidDreamer
and GCS-BEG, and a key of ours is off by default. Meanings and units are the fields' descriptions, from which
``--help`` is printed.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from config.camera_params import GenerateCamParams
from config.guidance_params import GuidanceParams
from config.keys import Flag, OptionalText, Real, Section, Text, Whole, key, one_of, whole_numbers
from config.mixing import guides
from config.model_params import ModelParams, PipelineParams
from config.optimization_params import OptimizationParams

GUIDANCE_NAMES = ("sds", "ism", "cds", "gcs", "sctd")
TRAIN_TIMESTEPS = 1000

OF_ONE_PRIOR = (
    *("hf_key", "base_model_key", "prediction_type", "LoRA_path", "LoRA_scale", "LoRA_partial"),
    *("textual_inversion_path", "clip_skip", "encoder", "small_encoder_key"),
    *("controlnet_model_key", "image_prompt"),
)
"""Keys of GuidanceParams that describe `model_key` alone, and not `refine_model_key` or `multiview_model_key`."""

LIKE_MEANT = {"gcs_beg": "gcs-beg", "gcsbeg": "gcs-beg", "gcs": "gcs-beg"}
"""Spellings of the projects that `like` names, besides capitals."""

SECTIONS: dict[str, str] = {
    "GuidanceParams": "guidance",
    "ModelParams": "model",
    "PipelineParams": "pipeline",
    "OptimizationParams": "optimization",
    "GenerateCamParams": "camera",
}
"""YAML section name -> attribute of ``Config``."""


class Config(Section):
    """Settings of a run, all that it depends on."""

    guidance_type: Annotated[str, one_of(*GUIDANCE_NAMES)] = key("sctd", "the guidance method")
    phase_num: Whole = key(5, "N_s, the number of SCTD's segments", ge=1, le=TRAIN_TIMESTEPS)
    num_ddim_timesteps: Whole = key(
        50, "points of the solver's grid on [0, 1000) (SCTD of the paper)", ge=1, le=TRAIN_TIMESTEPS
    )
    seed: Whole = key(0, "seed of every random draw", ge=0)
    like: Annotated[
        str | None, one_of("segmentdreamer", "luciddreamer", "gcs-beg", meant=LIKE_MEANT, or_none=True)
    ] = key(
        None,
        "keys that neither the file nor a flag has are as in this project's own runs; SegmentDreamer's guidance_scale is "
        "7.5 then, unless guid_scale is given. One line reports what is set, and what still differs",
    )
    fast: Flag = key(
        False,
        "fewer calls of the prior, each cheaper and used more often: what the file has, changed as docs/fast.md has it; "
        "flags win. One line reports what is set",
    )
    deterministic: Flag = key(
        False, "make the same bytes from the same seed on an accelerator too, which is slower"
    )
    device: Text = key("auto", "device of the whole run; auto takes the best there is", blank_is_default=True)
    save_video: Flag = key(True, "save turntable videos at the test iterations")
    test_ratio: Whole = key(5, "how many times in a run the test views are rendered", ge=1)
    save_ratio: Whole = key(2, "how many times in a run the Gaussians are saved", ge=1)
    quiet: Flag = key(False, "show no progress bar")
    view: Flag = key(False, "show the asset in the browser as it forms, with a button to pause the run")
    view_port: Whole = key(
        8080, "port of the page of view; if it is taken, the next free one", ge=1024, le=65535
    )
    detect_anomaly: Flag = key(False, "let autograd name the operation that made a NaN (slow)")
    checkpoint_iterations: Annotated[tuple[int, ...], whole_numbers(1)] = key(
        (), "iterations after which a checkpoint is written, in addition to those by time"
    )
    checkpoint_minutes: Real = key(5.0, "minutes between checkpoints; the last two are kept", gt=0)
    resume: OptionalText = key(None, "folder of a run, to continue from its last checkpoint")
    start_checkpoint: OptionalText = key(None, "file of one checkpoint of a run, to continue from it")
    force: Flag = key(False, "continue although settings or the prior differ from the checkpoint's")
    debug_from: Whole = key(-1, "iteration from which the CUDA rasterizer dumps", unused=True, ge=-1)
    ip: Text = key("127.0.0.1", "address of the old viewer's server", unused=True)
    port: Whole = key(2355, "port of the old viewer's server", unused=True, ge=0, le=65535)

    guidance: GuidanceParams = Field(default_factory=GuidanceParams)
    model: ModelParams = Field(default_factory=ModelParams)
    pipeline: PipelineParams = Field(default_factory=PipelineParams)
    optimization: OptimizationParams = Field(default_factory=OptimizationParams)
    camera: GenerateCamParams = Field(default_factory=GenerateCamParams)

    @property
    def small_encoder_iterations(self) -> int:
        """Number of iterations, from the first, that the small encoder takes."""
        if self.guidance.encoder != "small":
            return 0
        return round(self.guidance.small_encoder_share * self.optimization.iterations)

    def guided_at(self, step: int) -> Config:
        """Return the configuration of the prior that guides iteration `step`, from 1: model_key is its own.

        LoRA, textual inversion and whatever else describes one model belong to the first.
        """
        params = self.guidance
        if params.refine_model_key is not None and step > self.mixed_iterations:
            return self._under(params.refine_model_key)
        return self._multiview() if self._multiview_guides(step) else self

    def guiding_from(self, step: int) -> list[Config]:
        """Return the configurations of the priors that take turns from iteration `step` on: first of that which guides it,
        then of the other, if it has a turn before `refine_model_key` takes over."""
        turns = dict.fromkeys(self._multiview_guides(each) for each in range(step, self.mixed_iterations + 1))
        mixed = [self._multiview() if turn else self for turn in turns]
        return mixed or [self.guided_at(step)]

    @property
    def mixed_iterations(self) -> int:
        """Number of iterations, from the first, before `refine_model_key` takes over, if that is given."""
        params, last = self.guidance, self.optimization.iterations
        return last if params.refine_from_iter is None else min(last, params.refine_from_iter - 1)

    @property
    def multiview_iterations(self) -> int:
        """Number of iterations that `multiview_model_key` guides."""
        return sum(self._multiview_guides(step) for step in range(1, self.mixed_iterations + 1))

    def _multiview_guides(self, step: int) -> bool:
        params = self.guidance
        if params.multiview_model_key is None:
            return False
        return guides(params.multiview_share, min(step, self.mixed_iterations), self.mixed_iterations)

    def _multiview(self) -> Config:
        assert self.guidance.multiview_model_key is not None
        return self._under(self.guidance.multiview_model_key, prior_image_size=None)

    def _under(self, model_key: str, **keys: object) -> Config:
        """Return the configuration of another prior, without what describes the first."""
        params = self.guidance
        fields = type(params).model_fields
        own = {name: fields[name].default for name in OF_ONE_PRIOR}
        changed = params.model_copy(update={**own, **keys, "model_key": model_key})
        return self.model_copy(update={"guidance": changed})

    @property
    def is_papers_sctd(self) -> bool:
        """Whether the method is SCTD as in the paper, not as released."""
        return self.guidance_type == "sctd" and self.guidance.sctd_variant == "paper"

    def encodes_with(self, step: int) -> str:
        """Return the name of the prior's network that encodes in iteration `step`, from 1: "small_encoder" or "vae"."""
        return "small_encoder" if step <= self.small_encoder_iterations else "vae"


def section_of(name: str) -> type[Section]:
    """Return the model of a YAML section, or ``Config`` itself for the keys at the top ('')."""
    if not name:
        return Config
    model = Config.model_fields[SECTIONS[name]].annotation
    assert isinstance(model, type)
    assert issubclass(model, Section)
    return model


def keys_of(name: str) -> list[str]:
    """Return the keys of a YAML section, or of the top of the file ('')."""
    return [field for field in section_of(name).model_fields if name or field not in SECTIONS.values()]
