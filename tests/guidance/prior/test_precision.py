"""The networks' way to run: fast attention, channels last, and float32 for everything around them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import guidance
from guidance import Conditioning, PromptEmbeddings
from guidance.contract import Prediction
from guidance.prior import StableDiffusionPrior
from tests.draws import rngs
from tests.guidance.cases import VARIANTS, config_of
from tests.tiny_diffusers import write_tiny_folder
from utils.device import resolve_device

VIEWS = 2


@pytest.fixture
def prior(tmp_path: Path) -> StableDiffusionPrior:
    return StableDiffusionPrior.load(str(write_tiny_folder(tmp_path)), resolve_device("cpu"))


@pytest.fixture
def images() -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.rand(VIEWS, 3, 32, 32, generator=rng).requires_grad_()


@pytest.fixture
def conditioning(prior: StableDiffusionPrior) -> Conditioning:
    prompts = PromptEmbeddings(prior, "a mug", negative="ugly", perp_neg=guidance.PerpNeg())
    return prompts.at(torch.tensor([60.0, -90.0]), torch.full((VIEWS,), 80.0))


class Calls(TorchFunctionMode):
    """Counter of the functions of torch that are called, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[getattr(func, "__name__", "")] += 1
        return func(*args, **(kwargs or {}))


def attentions(network: torch.nn.Module) -> int:
    return sum(type(module).__name__ == "Attention" for module in network.modules())


def test_all_attention_is_torch_s_own(
    prior: StableDiffusionPrior, images: Tensor, conditioning: Conditioning
) -> None:
    """Each attention of a network calls the fused kernel once; none is two products and a softmax."""
    halves = {"encoder": prior.vae.encoder, "decoder": prior.vae.decoder, "unet": prior.unet}
    counts = {name: attentions(network) for name, network in halves.items()}
    assert counts == {"encoder": 1, "decoder": 1, "unet": 8}
    z = torch.randn(VIEWS, 4, 16, 16)
    runs = {
        "encoder": lambda: prior.encode(images),
        "decoder": lambda: prior.decode(z),
        "unet": lambda: prior.predict(z, torch.full((VIEWS,), 500), conditioning.positive).eps,
    }
    for name, run in runs.items():
        with Calls() as calls:
            run()
        assert calls.counts["scaled_dot_product_attention"] == counts[name], name
        assert not calls.counts["softmax"] + calls.counts["baddbmm"], name


def test_convolutions_are_channels_last(prior: StableDiffusionPrior) -> None:
    for network in (prior.vae, prior.unet):
        weights = [module.weight for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
        assert len(weights) > 5
        assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


@pytest.fixture
def watched(
    prior: StableDiffusionPrior, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, set[torch.dtype]]]:
    """Precisions of what networks in bfloat16 take, and of what the prior takes and gives."""
    prior.vae.bfloat16(), prior.unet.bfloat16()
    seen: dict[str, set[torch.dtype]] = {"networks": set(), "prior": set()}

    def note(place: str, *values: object) -> None:
        seen[place] |= {
            value.dtype for value in values if isinstance(value, Tensor) and value.is_floating_point()
        }

    for name in ("encode", "decode", "predict"):
        plain = getattr(prior, name)

        def noted(*args: Tensor, plain: Any = plain) -> Tensor:
            answer = plain(*args)
            answers = (answer.eps, answer.clean) if isinstance(answer, Prediction) else (answer,)
            tensors = (each for each in (*args, *answers) if isinstance(each, Tensor))
            note("prior", *tensors)
            return answer

        monkeypatch.setattr(prior, name, noted)
    hooks = [
        network.register_forward_pre_hook(lambda module, args: note("networks", *args))
        for network in (prior.vae.encoder, prior.vae.decoder, prior.unet)
    ]
    yield seen
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_the_networks_are_in_half_precision(
    prior: StableDiffusionPrior,
    images: Tensor,
    conditioning: Conditioning,
    watched: dict[str, set[torch.dtype]],
    variant: str,
) -> None:
    """Latents, noise levels and the gradient stay float32 through all of a guidance."""
    changes = {"w_cp": 0.7} if variant == "sctd released" else {}
    method = guidance.build(config_of(variant, **changes), prior)
    output = method(images, conditioning, 399, rngs(len(images)))
    output.loss.backward()
    assert watched == {"networks": {torch.bfloat16}, "prior": {torch.float32}}
    results = [output.loss, output.gradient, images.grad, *(clean() for clean in output.predictions.values())]
    assert {value.dtype for value in results} == {torch.float32}
