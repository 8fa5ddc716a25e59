"""A model in one of diffusers' own pipelines: its parts are read by diffusers' classes, its texts embedded once."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from guidance.condition import Condition
from guidance.prior.autoencoders import shrinks_by
from guidance.prior.embeddings import Embeddings
from guidance.prior.image_prompt import read_image_prompt
from guidance.prior.image_prompt_files import ImagePromptFiles
from guidance.prior.latent_prior import LatentPrior
from guidance.prior.libraries import in_short, quiet_libraries, without_progress_bars
from guidance.prior.model_files import SMALL_ENCODER, PriorError
from guidance.prior.network_files import NetworkFiles
from guidance.prior.parametrization import Parametrization, parametrization_of
from guidance.prior.pipeline_files import PipelineFolder
from guidance.prior.small_encoder import find_small_encoder, read_small_encoder, report_difference
from utils.device import HOST, computes_bfloat16, is_accelerator, release_memory

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """Wishes of a run for a model.

    Attributes:
        texts: all that it will embed.
        half: half precision where the device computes it.
        image_size: pixels at which the prior looks at images; None: as its files have it.
        prediction_type: "epsilon" or "v_prediction", against what its files name.
        embeddings: folder where embeddings are kept.
        lora, lora_scale: a LoRA's file or folder for the network, and the factor on its change.
        small_encoder, small_encoder_key: whether there is to be a small encoder, and which; None: the family's.
        image_prompt: the files of an image prompt, for a family that takes one.
    """

    texts: Sequence[str] = ()
    half: bool = True
    image_size: int | None = None
    prediction_type: str | None = None
    embeddings: str | None = None
    lora: str | None = None
    lora_scale: float = 1.0
    small_encoder: bool = False
    small_encoder_key: str | None = None
    image_prompt: ImagePromptFiles | None = None


class PipelinePrior(LatentPrior):
    """The base of a family: an adapter names its pipeline, and has `embed_with`, `answer` and `latents_of`.

    Args:
        embeddings: conditions of texts, kept and made.
    """

    pipeline = ""
    """diffusers' class, which `_class_name` in model_index.json names."""
    core = "transformer"
    taesd: str | None = None
    """Hub id of the small encoder that is published for its latents."""
    half = torch.bfloat16
    patch = 2
    """Latents are cut into patches as wide as this: an image's side must be a multiple of both."""

    def __init__(
        self,
        vae: Any,
        network: Any,
        predicts: Parametrization,
        latents: tuple[int, int, int],
        files: Mapping[str, Path],
        embeddings: Embeddings,
        small_encoder: Any = None,
    ) -> None:
        super().__init__(vae, network, predicts, latents, files, small_encoder)
        self._embeddings = embeddings

    @staticmethod
    def embed_with(pipeline: Any, texts: Sequence[str], image_size: int) -> Condition:
        """Embed P texts by a pipeline that holds nothing but the text encoders.

        image_size: pixels at which the network looks at images.
        """
        raise NotImplementedError

    @staticmethod
    def latents_of(config: Any) -> tuple[int, int]:
        """Return the channels and the side of the latents that a network's configuration names."""
        return int(config.in_channels), int(config.sample_size)

    @classmethod
    def load(cls, folder: PipelineFolder, device: torch.device, wanted: Wanted) -> PipelinePrior:
        """Load a model: its texts are embedded and its text encoders freed before the network is there.

        Raises: PriorError, one sentence.
        """
        dtypes = cls.precisions(device, wanted.half)
        small = cls.small_encoder_of(folder, wanted)
        with without_progress_bars():
            predicts = parametrization_of(folder.key, folder.path, None, wanted.prediction_type)
            channels, side, _ = cls.sizes(folder, wanted.image_size)
            embeddings = cls.embeddings(folder, device, wanted)
            embeddings(wanted.texts)
            release_memory(device)
            parts = {name: read_part(folder, name, _class_of(folder, name), dtypes[name]) for name in dtypes}
            files = folder.files(*dtypes)
            if small is not None:
                parts["small_encoder"] = read_small_encoder(small, parts["vae"], dtypes["vae"])
                files |= small.files(SMALL_ENCODER)
            if wanted.lora is not None:
                files |= _add_lora(cls, parts[cls.core], wanted.lora, wanted.lora_scale)
            tokens = None
            if wanted.image_prompt is not None:
                tokens = read_image_prompt(wanted.image_prompt, parts[cls.core], device)
                files |= wanted.image_prompt.files()
        # Not diffusers' own `to`, which warns of the precision of a small encoder.
        parts = {name: nn.Module.to(part, device) for name, part in parts.items()}
        vae, network, tiny = parts["vae"], parts[cls.core], parts.get("small_encoder")
        prior = cls(vae, network, predicts, (channels, side, side), files, embeddings, tiny)
        prior.image_tokens = tokens
        if small is not None:
            report_difference(small, prior.vae, prior.small_encoder)
        return prior

    @classmethod
    def small_encoder_of(cls, folder: PipelineFolder, wanted: Wanted) -> NetworkFiles | None:
        """Find the small encoder that a run wants. Raises: PriorError, one sentence, if there is none to be had."""
        if not wanted.small_encoder:
            return None
        return find_small_encoder(wanted.small_encoder_key, folder.home("vae"), cls.taesd)

    @classmethod
    def precisions(cls, device: torch.device, half: bool) -> dict[str, torch.dtype]:
        """Return the precision of the autoencoder and of the network, which the text encoders share."""
        half = half and is_accelerator(device)
        # float16 is too narrow for many of these autoencoders, and for all transformers.
        wide = torch.bfloat16 if half and computes_bfloat16(device) else torch.float32
        return {"vae": wide, cls.core: torch.float16 if half and cls.half == torch.float16 else wide}

    @classmethod
    def sizes(cls, folder: PipelineFolder, image_size: int | None) -> tuple[int, int, int]:
        """Return channels and side of the latents, and the side of the images.

        Raises: PriorError if an image of `image_size` cannot be cut into patches.
        """
        channels, side = cls.latents_of(_config_of(folder, cls.core))
        shrinks = shrinks_by(_config_of(folder, "vae"))
        if image_size is None:
            return channels, side, side * shrinks
        if image_size % (shrinks * cls.patch):
            raise PriorError(
                f"prior_image_size is {image_size}, but model_key '{folder.key}' needs a multiple of {shrinks * cls.patch}."
            )
        return channels, image_size // shrinks, image_size

    @classmethod
    def embeddings(cls, folder: PipelineFolder, device: torch.device, wanted: Wanted) -> Embeddings:
        """Conditions of texts: those that are kept, and those that the model's text encoders make."""
        *_, size = cls.sizes(folder, wanted.image_size)
        dtype = cls.precisions(device, wanted.half)[cls.core]

        def make(texts: Sequence[str]) -> Condition:
            missing = folder.missing_encoders()
            if missing:
                raise PriorError(
                    f"model_key '{folder.key}' lacks {', '.join(missing)}, and '{texts[0]}' has not been embedded: python -m "
                    "guidance.prior.embed does that where they are, and --embeddings names the folder that it writes."
                )
            with cls._text_encoders(folder, device, dtype) as pipeline, torch.no_grad():
                return cls.embed_with(pipeline, texts, size)

        marks = f"{cls.pipeline} {size}", folder.mark_of_encoders()
        return Embeddings(wanted.embeddings, folder.fingerprint(cls.core, "vae"), marks, make, device)

    @classmethod
    @contextmanager
    def _text_encoders(
        cls, folder: PipelineFolder, device: torch.device, dtype: torch.dtype
    ) -> Iterator[Any]:
        """diffusers' pipeline with the text encoders alone, which are gone in the end."""
        import diffusers

        left_out = [name for name in folder.parts if not name.startswith(("text_encoder", "tokenizer"))]
        absent = [name for name, (library, _) in folder.parts.items() if library is None]
        try:
            with quiet_libraries():
                pipeline = getattr(diffusers, cls.pipeline).from_pretrained(
                    folder.path,
                    **dict.fromkeys([*left_out, *absent]),
                    **folder.variant("text_encoder"),
                    dtype=dtype,
                    local_files_only=True,
                )
        except Exception as error:  # whatever a configuration makes the libraries run into
            raise PriorError(
                f"model_key '{folder.key}' has text encoders in {folder.path} that cannot be loaded ({in_short(error)})."
            ) from error
        pipeline.to(device)
        # A pipeline reads off the network the width of text where an encoder is absent.
        object.__setattr__(pipeline, cls.core, _Configured(folder.config(cls.core)))
        yield pipeline

    def embed(self, prompts: Sequence[str]) -> Condition:
        """Return the conditions of P texts, by the text encoders if they are not kept."""
        return self._embeddings(prompts)

    def free_text_encoder(self) -> None:
        """Nothing: they are freed as soon as the texts are embedded."""

    def blank_condition(self, rows: int) -> Condition:
        """Make a condition without a meaning, as large as the largest that has been embedded."""
        largest = self._embeddings.largest()
        return Condition(
            {
                name: part[:1].to(HOST if name == "length" else self.device).expand(rows, *part.shape[1:])
                for name, part in largest.parts.items()
            }
        )


def read_part(folder: PipelineFolder, name: str, kind: Any, dtype: torch.dtype) -> Any:
    """Read a part of the class `kind` to the host, complete and finite. Raises: PriorError, one sentence."""
    try:
        with quiet_libraries():
            network, info = kind.from_pretrained(
                folder.home(name),
                subfolder=name,
                dtype=dtype,
                local_files_only=True,
                output_loading_info=True,
                **folder.variant(name),
            )
    except Exception as error:  # whatever a configuration makes the libraries run into
        raise PriorError(
            f"model_key '{folder.key}' has a {name} in {folder.path} that cannot be loaded ({in_short(error)})."
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise PriorError(
            f"model_key '{folder.key}' has a {name} without {len(missing)} of its weights ({missing[0]}, ...)."
        )
    check_finite(name, network, folder.key)
    return network


def check_finite(name: str, network: Any, model_key: str) -> None:
    """Check that all weights of a network are finite. Raises: PriorError, one sentence."""
    bad = [weight for weight, values in network.named_parameters() if not bool(values.isfinite().all())]
    if bad:
        raise PriorError(
            f"model_key '{model_key}' has a {name} with weights that are not finite, {bad[0]} the first: fetch it again."
        )


class _Configured:
    """The configuration of a network that is not there."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = SimpleNamespace(**config)


def _class_of(folder: PipelineFolder, name: str) -> Any:
    import diffusers

    library, kind = folder.parts[name]
    if library != "diffusers" or not hasattr(diffusers, str(kind)):
        raise PriorError(
            f"model_key '{folder.key}' has a {name} of {library}'s {kind}, but only diffusers' own are read."
        )
    return getattr(diffusers, str(kind))


def _config_of(folder: PipelineFolder, name: str) -> SimpleNamespace:
    """Read a network's configuration, with its class's defaults for what it leaves open."""
    defaults = signature(_class_of(folder, name).__init__).parameters
    known = {key: each.default for key, each in defaults.items() if each.default is not each.empty}
    return SimpleNamespace(**{**known, **folder.config(name)})


def _add_lora(cls: type[PipelinePrior], network: Any, lora: str, scale: float) -> dict[str, Path]:
    """Add `scale` times a LoRA to the network's weights by diffusers' own reader; return its file, by its key.

    Raises: PriorError, one sentence.
    """
    import diffusers

    from guidance.prior.lora_files import KEY, file_in

    kind, path = getattr(diffusers, cls.pipeline), file_in(Path(lora).expanduser())
    try:
        with quiet_libraries():
            given = {"unet_config": network.config} if cls.core == "unet" else {}
            found = kind.lora_state_dict(str(path), local_files_only=True, **given)
            state, alphas = found if isinstance(found, tuple) else (found, None)
            others = sorted({name.split(".")[0] for name in state if not name.startswith(cls.core + ".")})
            mine = {name: values for name, values in state.items() if name.startswith(cls.core + ".")}
            if not mine:
                raise ValueError(
                    f"it has no weights of a {cls.core}, but of {', '.join(others) or 'nothing'}"
                )
            before = _sums(network)
            if cls.core == "unet":
                kind.load_lora_into_unet(mine, alphas, network)
            else:
                kind.load_lora_into_transformer(mine, transformer=network)
            network.fuse_lora(lora_scale=scale)
            network.unload_lora()
        changed = [name for name, total in _sums(network).items() if total != before[name]]
        if not changed:
            raise ValueError("it changes no weight")
    except Exception as error:  # a foreign layout makes the library raise anything
        raise PriorError(f"{KEY} '{path}' cannot be added to a {cls.core} ({in_short(error)}).") from error
    if others:
        logger.warning(
            "%s '%s' also has weights of %s, which are left out: only the network's are added.",
            KEY,
            path,
            " and ".join(others),
        )
    logger.info("%s changes %d weights.", path, len(changed))
    return {KEY: path}


def _sums(network: Any) -> dict[str, float]:
    """Sum of the squares of each of a network's weights, by name."""
    return {
        name: float(values.detach().float().square().sum()) for name, values in network.named_parameters()
    }
