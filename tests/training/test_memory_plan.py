"""Plans for cards of every size, made on the meta device, and their parts, counted on this one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import cast

import pytest
import torch

import config as configuration
import guidance
from config import Config
from guidance import GuidanceOutput
from guidance.prior import StableDiffusionPrior
from iterations.sd21 import RandomPrior
from scene.cameras import ViewRange, sample
from scene.initialize import initialize
from tests.changed import changed
from training import memory_plan
from training.live_memory import LiveMemory
from training.memory_plan import BYTES_PER_PIXEL, MemoryPlan, guidance_bytes, plan_memory, plans
from training.state import Training, assemble
from training.step import backward
from utils.device import HOST
from utils.rng import Draws

CARDS = [8, 12, 24, 80]
"""Memory of each card, in GB."""


@pytest.fixture(scope="module")
def sd21() -> StableDiffusionPrior:
    return RandomPrior(torch.device("meta"), torch.float16)


@pytest.fixture(scope="module")
def bagel() -> Config:
    return changed(configuration.load(["--opt", "config/bagel.yaml"]), C_batch_size=4)


def test_plans_end_with_one_view_at_a_time() -> None:
    assert list(plans(1)) == [MemoryPlan(1, False), MemoryPlan(1, True)]
    assert [plan.views_at_once for plan in plans(5)] == [5, 5, 3, 2, 1]
    assert [plan.encode_singly for plan in plans(5)] == [False, True, True, True, True]
    assert [plan.views_at_once for plan in plans(20, together=4)] == [20, 20, 12, 8, 4]


@pytest.fixture(params=["assumed", pytest.param("true", marks=pytest.mark.thorough)])
def needed(
    request: pytest.FixtureRequest, bagel: Config, sd21: StableDiffusionPrior, monkeypatch: pytest.MonkeyPatch
) -> Callable[[MemoryPlan], int]:
    """Bytes of each plan of four views, as they are, or such as they might be."""
    needed_bytes, assumed = memory_plan.needed_bytes, dict(zip(plans(4), (9.4e9, 4.8e9, 3.4e9, 2.6e9)))
    found = cache(
        assumed.__getitem__ if request.param == "assumed" else lambda plan: needed_bytes(bagel, sd21, plan)
    )
    monkeypatch.setattr(memory_plan, "needed_bytes", lambda config, prior, plan, rectifier: found(plan))
    return found


def test_stable_diffusion_on_cards_of_every_size(
    sd21: StableDiffusionPrior,
    bagel: Config,
    needed: Callable[[MemoryPlan], int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The chosen plan fits into what is free, nothing faster does, and more memory never makes it slower."""
    order = list(plans(4))
    sizes = [needed(plan) for plan in order]
    assert sizes == sorted(sizes, reverse=True)
    # One view of 512² keeps 1.6 GB in the autoencoder in half precision, and four of them four times that.
    assert sizes[0] - sizes[1] > 3 * 1.5e9
    caplog.set_level(logging.INFO)
    weights, context = 2 * (865_910_724 + 83_653_863), 600 * 10**6
    chosen = []
    for card in CARDS:
        free = card * 10**9 - weights - context
        plan = plan_memory(bagel, sd21, 4, free)
        assert needed(plan) <= free
        assert all(needed(faster) > free for faster in order[: order.index(plan)])
        assert caplog.messages[-1] == f"{free / 1e9:.1f} GB free: {plan} ({needed(plan) / 1e9:.1f} GB)."
        chosen.append(plan)
    assert chosen == [MemoryPlan(4, True), *[MemoryPlan(4, False)] * 3]
    ranks = [order.index(plan_memory(bagel, sd21, 4, 10**8 * tenths)) for tenths in range(120)]
    assert ranks == sorted(ranks, reverse=True)
    assert set(ranks) == {0, 1, 2, 3}
    assert plan_memory(bagel, sd21, 4, 10**8) == MemoryPlan(1, True)
    assert caplog.messages[-1].startswith(
        "0.1 GB free: 1 view at a time, the autoencoder view by view, which may take"
    )
    assert plan_memory(changed(bagel, vram_O=True), sd21, 4, 10**12) == MemoryPlan(1, True)


def test_the_tiny_prior_fits_anywhere(tiny_config: Config) -> None:
    config = changed(tiny_config, C_batch_size=4, init_num_pts=1000, approximate=False)
    prior = guidance.prior.load_prior(config, HOST)
    assert plan_memory(config, prior, 4, min(CARDS) * 10**9) == MemoryPlan(4, False)
    assert prior.device == HOST
    assert prior.encode(torch.rand(1, 3, 32, 32)).isfinite().all()


@pytest.mark.parametrize(
    "keys",
    [{}]
    + [
        pytest.param(keys, marks=pytest.mark.thorough)
        for keys in (
            {"guidance_type": "gcs"},
            {"perpneg": False},
            {"approximate": False},
            {"rectify_poses": 1.0},
        )
    ],
    ids=str,
)
def test_what_is_foretold_is_what_a_real_guidance_holds(tiny_config: Config, keys: dict[str, object]) -> None:
    """A real guidance is counted in the same way, forward and backward, on this machine."""
    config = changed(tiny_config, C_batch_size=3, image_w=32, image_h=32, **keys)
    prior, rectifier = guidance.prior.load_prior(config, HOST), None
    if config.guidance.rectify_poses:
        rectifier = guidance.prior.load_rectifier(changed(config, model_key="toybox"), HOST)
    prompts = guidance.embed_prompts(config, prior)
    guide = guidance.build(config, prior, rectifier=rectifier)
    images = torch.rand(3, 3, 32, 32, requires_grad=True)
    with LiveMemory() as memory:
        conditioning = prompts.at(torch.full((3,), 45.0), torch.full((3,), 90.0))
        guided = guide(images, conditioning, 0, Draws(0).of_views("timesteps", 0, range(3)))
        guided.loss.backward()
        del guided
    foretold = guidance_bytes(config, prior, MemoryPlan(3, False), rectifier)
    assert foretold == pytest.approx(memory.peak, rel=0.1)


@pytest.mark.thorough
def test_one_by_one_takes_less(tiny_config: Config) -> None:
    config = changed(tiny_config, C_batch_size=4, image_w=32, image_h=32)
    prior = guidance.prior.load_prior(config, HOST)
    at_once, singly = (guidance_bytes(config, prior, MemoryPlan(4, one)) for one in (False, True))
    assert singly < 0.6 * at_once


@pytest.mark.parametrize(("size", "ssaa"), [(64, 1), (128, 1), (64, 2)])
def test_bytes_per_pixel(size: int, ssaa: int) -> None:
    """The rasterizer, what its images become, and their gradients take no more than the plan counts on."""
    flags = "--fast false --init_shape sphere --init_num_pts 20 --text mug --C_batch_size 2 --lambda_alpha 1 --lambda_alpha_binary 1 --lambda_tv_l1 1"
    config = changed(
        configuration.load(flags.split()), image_w=size, image_h=size, SSAA=ssaa, as_latent_ratio=1.0
    )
    draws = Draws(0)
    state = SimpleNamespace(
        config=config,
        gaussians=initialize(config, draws.at("init"), HOST),
        prompts=SimpleNamespace(at=lambda azimuth, polar, mirrored: None),
        guide=lambda images, *rest, **colors: GuidanceOutput(
            images.square().sum(), {}, {}, images.detach(), {}
        ),
        draws=draws,
        prior=SimpleNamespace(views_per_set=1),
        steering=None,
        device=HOST,
    )
    cameras = sample(config.camera, ViewRange.initial(config.camera), 2, draws.at("cameras", 1))
    with LiveMemory() as memory:
        backward(cast(Training, state), cameras, range(2), 1)
    each = memory.peak / (2 * (size * ssaa) ** 2)
    assert 0.75 * BYTES_PER_PIXEL < each < BYTES_PER_PIXEL


def test_on_the_host_all_views_go_at_once_unless_less_is_asked_for(tiny_config: Config) -> None:
    """The result of a run depends on its settings only, whatever memory is free."""
    state = assemble(changed(tiny_config, C_batch_size=4))
    assert (state.counts.views_at_once, state.counts.encode_singly) == (None, False)
    state = assemble(changed(tiny_config, C_batch_size=4, vram_O=True))
    assert (state.counts.views_at_once, state.counts.encode_singly) == (1, True)
