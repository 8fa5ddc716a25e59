"""Find the files of a model's two stages on this disk, from its name."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from point_e.checkpoint import skeleton
from point_e.clip import VIT_L_14
from point_e.download import fetch, find_in, verify
from point_e.errors import PointEError, reason_of
from point_e.models import BASE_MODELS, DEFAULT, UPSAMPLER, StageConfig, stage_from_json

Asked = Literal["text", "image", "nothing"]
"""Kind of input that a base model makes points from."""


@dataclass(frozen=True)
class Cascade:
    """Base model and its upsampler, if it has one: their checkpoints, and the CLIP (a folder or a hub id)
    that conditions them.
    """

    stages: tuple[StageConfig, ...]
    files: tuple[Path, ...]
    asked: Asked
    clip: str = VIT_L_14


def find_cascade(model: str, *, offline: bool) -> Cascade:
    """The cascade that `model` stands for.

    model: "openai", for base40M-textvec; the name of a published base model; the path of one's checkpoint under its
    published name; or a folder, with such a checkpoint or with a config.json as `point_e.models.stage_from_json`
    describes it. An upsampler that is not beside its base model is the published one. Raises PointEError.
    """
    name = DEFAULT if model == "openai" else model
    if name in BASE_MODELS:
        return _cascade(name, fetch(BASE_MODELS[name], offline=offline), fetch(UPSAMPLER, offline=offline))
    path = Path(model).expanduser()
    if path.is_file():
        names = [name for name, base in BASE_MODELS.items() if Path(base.file).stem == path.stem]
        if not names:
            known = ", ".join(base.file for base in BASE_MODELS.values())
            raise PointEError(f"the model {model!r} must have the name of a published base model: {known}.")
        return _published_at(names[0], path, offline)
    if path.is_dir():
        return _own(path) if (path / "config.json").is_file() else _published_in(path, offline)
    near = difflib.get_close_matches(model, BASE_MODELS, n=1, cutoff=0.0)[0]
    raise PointEError(
        f"the model {model!r} is neither 'openai' nor a base model's name, the nearest of which is {near!r}, "
        f"nor a checkpoint or a folder here."
    )


def _published_in(folder: Path, offline: bool) -> Cascade:
    """The published base model in a folder; where it has several, the one that makes points from text."""
    found = {name: path for name, base in BASE_MODELS.items() if (path := find_in(folder, base)) is not None}
    if not found:
        known = ", ".join(base.file for base in BASE_MODELS.values())
        raise PointEError(f"the model {str(folder)!r} has neither a config.json nor one of {known}.")
    if len(found) > 1 and DEFAULT not in found:
        raise PointEError(
            f"the model {str(folder)!r} has {', '.join(path.name for path in found.values())}; "
            f"give the path of the one that is meant."
        )
    name = DEFAULT if DEFAULT in found else next(iter(found))
    return _published_at(name, found[name], offline)


def _published_at(name: str, base: Path, offline: bool) -> Cascade:
    """A base model's file that the user named, with the upsampler beside it or the published one."""
    verify(base)
    upsampler = find_in(base.parent, UPSAMPLER)
    if upsampler is None:
        return _cascade(name, base, fetch(UPSAMPLER, offline=offline))
    verify(upsampler)
    return _cascade(name, base, upsampler)


def _cascade(name: str, base: Path, upsampler: Path) -> Cascade:
    stage = BASE_MODELS[name].stage
    asked: Asked = "nothing" if stage.model.clip == "none" else "text" if name == DEFAULT else "image"
    return Cascade((stage, UPSAMPLER.stage), (base, upsampler), asked)


def _own(folder: Path) -> Cascade:
    """The cascade in a folder of our own layout; a base model conditioned by a vector gets one of text."""
    asked: dict[str, Asked] = {"none": "nothing", "vector": "text", "grid": "image"}
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        names = [name for name in ("base", "upsample") if name == "base" or name in config]
        stages = tuple(stage_from_json(config[name]) for name in names)
        for stage in stages:
            skeleton(stage)  # sizes that make no sense raise here
        made_from = asked[stages[0].model.clip]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise PointEError(
            f"{str(folder / 'config.json')!r} does not describe a 'base' and perhaps an 'upsample' stage "
            f"({type(error).__name__}: {reason_of(error)})."
        ) from error
    files = tuple(folder / f"{name}.safetensors" for name in names)
    for file in files:
        verify(file)
    return Cascade(stages, files, made_from, str(folder / "clip"))
