"""Guidances on a device where every wait raises: none waits for it from the images to their gradient."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

import guidance
from guidance import SDS, Condition, Guidance, PerpNeg, PoseRectifier, Prediction, PromptEmbeddings, solver
from guidance.denoiser import Denoiser
from guidance.poses import packed
from guidance.prior import StableDiffusionPrior
from guidance.prior.parametrization import Parametrization
from guidance.prior.pose_classifiers import AzimuthClassifier
from tests.draws import rngs
from tests.guidance.cases import VARIANTS, VIEWS, config_of
from tests.tiny_diffusers import write_tiny_folder
from tests.waits import DEVICE, Wait, no_waits
from utils.device import resolve_device

THOROUGH = pytest.mark.thorough
WHOLE = ("sds", "ism", "cds", "gcs", "sctd")
"""Variants of which tests/training/test_no_waits.py runs whole iterations, with Perp-Neg."""
AZIMUTH, POLAR = torch.tensor([0.0, 60.0, 130.0, -90.0]), torch.tensor([90.0, 80.0, 70.0, 20.0])


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionPrior:
    """Prior in half precision on the device, where overflows are watched for, and of v, which has to be converted."""
    folder = write_tiny_folder(tmp_path_factory.mktemp("tiny"), prediction_type="v_prediction")
    loaded = StableDiffusionPrior.load(str(folder), resolve_device("cpu"))
    with DEVICE:
        unet = UNet2DConditionModel.from_config(loaded.unet.config).half()
        vae = AutoencoderKL.from_config(loaded.vae.config).half()
    networks = (vae, unet, loaded.text_encoder, loaded.tokenizer)
    moved = StableDiffusionPrior(*networks, Parametrization("v_prediction", loaded.schedule))
    assert moved.device == DEVICE
    return moved


class Encoder:
    """Stand-in for the text encoder: prompts are embedded once, before the first iteration."""

    def embed(self, prompts: Sequence[str]) -> Condition:
        return Condition({"text": torch.zeros(len(prompts), 16, 12, device=DEVICE)})


def guide(prior: StableDiffusionPrior, variant: str, *, with_negatives: bool, **changes: object) -> None:
    """Run the guidance of an iteration, forward and backward."""
    config = config_of(variant, **changes)
    prompts = PromptEmbeddings(
        Encoder(),
        "a mug",
        negative="ugly" if with_negatives else "",
        perp_neg=PerpNeg() if with_negatives else None,
    )
    method = guidance.build(config, prior)
    images = torch.rand(VIEWS, 3, 64, 64, device=DEVICE, requires_grad=True)
    with no_waits():
        output = method(images, prompts.at(AZIMUTH, POLAR), 399, rngs(VIEWS))
        output.loss.backward()
    assert images.grad is not None


@pytest.mark.parametrize(
    "with_negatives", [pytest.param(False, marks=THOROUGH), True], ids=["CFG", "Perp-Neg"]
)
@pytest.mark.parametrize(
    "variant", [pytest.param(name, marks=[THOROUGH] if name in WHOLE else []) for name in VARIANTS]
)
def test_a_guidance_waits_for_nothing(
    prior: StableDiffusionPrior, variant: str, with_negatives: bool
) -> None:
    guide(prior, variant, with_negatives=with_negatives)


def test_nor_does_encoding_singly(prior: StableDiffusionPrior, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prior, "encode_singly", True)
    guide(prior, "gcs", with_negatives=False)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("variant", "changes"),
    [
        ("sds", {"normalize_grad": True}),
        ("sds", {"guidance_scale": 1.0, "fix_noise": True}),
        ("ism", {"xs_delta_t": 60, "xs_eta": 0.5, "denoise_guidance_scale": 2.0, "fix_noise": False}),
        ("cds", {"fix_noise": False}),
        ("sctd", {"phase_num": 50}),
        ("sctd released", {"w_cp": 0.7, "normalize_grad": True}),
    ],
)
def test_a_guidance_waits_for_nothing_under_other_settings(
    prior: StableDiffusionPrior, variant: str, changes: dict[str, object]
) -> None:
    guide(prior, variant, with_negatives=True, **changes)


def test_nor_does_weighing_poses(prior: StableDiffusionPrior) -> None:
    """Not in the guidance, and not where averages are kept."""
    regressor = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2))
    rectifier = PoseRectifier(AzimuthClassifier(regressor), 1.0, "one").to(DEVICE)
    denoiser, config = Denoiser(prior), config_of("sds")
    weighing = Guidance(denoiser, SDS(config, denoiser), config.guidance, rectifier)
    conditioning = PromptEmbeddings(Encoder(), "a mug").at(AZIMUTH, POLAR)
    images = torch.rand(VIEWS, 3, 64, 64, device=DEVICE)
    with no_waits():
        output = weighing(images, conditioning, 399, rngs(VIEWS))
        assert output.poses is not None
        seen = packed([output.poses])
        rectifier.add(seen)
        rectifier.imbalance(seen)


def test_waits_in_a_step_are_seen(prior: StableDiffusionPrior, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests of this file find each of these faults."""
    encode, predict, per_view = prior.encode, prior.predict, solver.per_view

    def looks(images: Tensor) -> Tensor:
        z0 = encode(images)
        return z0 if bool(torch.isfinite(z0).all()) else torch.zeros_like(z0)

    def looks_at_predictions(z: Tensor, t: Tensor, condition: Condition) -> Prediction:
        found = predict(z, t, condition)
        return Prediction(found.eps / max(1.0, found.eps.norm().item()), found.clean_of)

    def copies(values: Tensor, like: Tensor) -> Tensor:
        return (
            per_view(values, like).to(like)
            if values.device == like.device
            else per_view(values.to(DEVICE), like)
        )

    for owner, name, fault in (
        (prior, "encode", looks),
        (prior, "predict", looks_at_predictions),
        (solver, "per_view", copies),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fault)
            with pytest.raises(Wait):
                guide(prior, "sds", with_negatives=False)
