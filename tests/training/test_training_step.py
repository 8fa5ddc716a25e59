"""An iteration in parts is the iteration in one, and several steps along a gradient are those of an optimizer."""

from __future__ import annotations

import pytest
import torch

from config import Config
from gaussian_renderer.regularize import binary_alpha, mean_scale, tv
from gaussian_renderer.training_views import training_views
from scene.cameras import ViewRange, sample
from tests.changed import changed
from training.faults import settle
from training.state import assemble
from training.step import backward_in_parts, training_step


@pytest.mark.parametrize("method", ["sds", "ism", "cds", "gcs", "sctd"])
def test_the_gradient_does_not_depend_on_the_parts(tiny_config: Config, method: str) -> None:
    """Timesteps, noise, backgrounds and augmentations are drawn part by part, but each view has its own."""
    keys = {"fix_noise": False, "bg_aug_ratio": 1, "shs_aug_ratio": 1, "flip_aug_ratio": 0.5}
    keys |= {"as_latent_ratio": 0, "C_batch_size": 4, "w_cp": 1.0}
    keys |= {"lambda_alpha": 2.0, "lambda_alpha_binary": 3.0, "sctd_variant": "released"}
    config, found = changed(tiny_config, guidance_type=method, **keys), []
    for at_once in (None, 3, 1):
        state = assemble(config)
        state.counts.views_at_once = at_once
        cameras = sample(config.camera, ViewRange.initial(config.camera), 4, state.draws.at("cameras", 1))
        parts = backward_in_parts(state, cameras, 1)
        assert [len(part.seen.cameras) for part in parts] == {None: [4], 3: [3, 1], 1: [1, 1, 1, 1]}[at_once]
        found.append({name: parameter.grad for name, parameter in state.gaussians.raw().items()})
    # Round Gaussians do not feel that they are turned.
    for name in ("xyz", "f_dc", "opacity", "scaling"):
        for gradient in found[1:]:
            torch.testing.assert_close(
                gradient[name], found[0][name], rtol=1e-3, atol=1e-4 * float(found[0][name].abs().max())
            )


def test_several_steps_follow_the_gradient_that_the_prior_gave_once(tiny_config: Config) -> None:
    """The reference: Adam in plain torch on <gradient, pixels> and the regularisers, of views rendered anew."""
    keys = {
        "guidance_type": "sds",
        "C_batch_size": 3,
        "bg_aug_ratio": 1,
        "shs_aug_ratio": 1,
        "grad_clip": None,
    }
    keys |= {"lambda_tv": 50.0, "lambda_scale": 2.0, "lambda_alpha": 0.0, "as_latent_ratio": 0.5}
    config = changed(
        tiny_config, **keys, lambda_alpha_binary=3.0, densify_until_iter=0, raster_steps=3, max_scale=None
    )
    params = config.optimization

    ours = assemble(config)
    moved = training_step(ours, 1).seen.geometry
    settle(ours)
    assert ours.counts.evaluations == 2

    reference = assemble(config)
    cameras = sample(config.camera, ViewRange.initial(config.camera), 3, reference.draws.at("cameras", 1))
    [asked] = backward_in_parts(reference, cameras, 1)
    reference.optimizer.forget_gradients()
    raw, rates = reference.gaussians.raw(), reference.optimizer.rates(1)
    groups = [{"params": [parameter], "lr": rates[name]} for name, parameter in raw.items()]
    adam = torch.optim.Adam(groups, betas=params.adam_betas, eps=1e-15)
    for _ in range(3):
        seen = training_views(reference.gaussians, cameras, config, 1, range(3), reference.draws)
        held = [
            (pixels * pull).sum() for pixels, pull in zip(seen.pixels(), asked.gradient) if pull is not None
        ]
        total = torch.stack(held).sum() + 50.0 * (tv(seen.out.rgb) + tv(seen.disparity))
        total = total + 2.0 * mean_scale(reference.gaussians.scales) + 3.0 * binary_alpha(seen.out.alpha)
        adam.zero_grad()
        total.backward()
        adam.step()
    assert len(held) == 1
    assert (asked.gradient[1] is not None) == moved
    for name in ("xyz", "f_dc", "opacity", "scaling"):
        # Adam makes whole steps of gradients that are nothing but rounding.
        same = torch.isclose(ours.gaussians.raw()[name], raw[name], rtol=1e-4, atol=1e-5)
        assert float(same.float().mean()) > 0.99, name


@pytest.mark.parametrize("method", ["gcs", "sctd"])
def test_the_pixel_term_reaches_the_colours_while_the_disparity_is_guided(
    tiny_config: Config, method: str
) -> None:
    keys = {"sctd_variant": "released", "C_batch_size": 2, "lambda_tv": 0.0, "lambda_scale": 0.0}
    config = changed(tiny_config, guidance_type=method, **keys, as_latent_ratio=1.0)
    found = {}
    for w_cp in (0.0, 0.5):
        state = assemble(changed(config, w_cp=w_cp))
        cameras = sample(config.camera, ViewRange.initial(config.camera), 2, state.draws.at("cameras", 1))
        [part] = backward_in_parts(state, cameras, 1)
        assert part.seen.geometry
        gradient = state.gaussians.raw()["f_dc"].grad
        found[w_cp] = 0.0 if gradient is None else float(gradient.norm())
    assert found[0.0] == 0.0
    assert found[0.5] > 0.0


def test_what_has_no_weight_is_nothing(tiny_config: Config) -> None:
    keys = {"lambda_tv": 0.0, "lambda_alpha": 2.0, "lambda_alpha_binary": 0.0}
    state = assemble(changed(tiny_config, **keys))
    numbers = training_step(state, 1).numbers
    assert (numbers["loss/tv"], numbers["loss/alpha_binary"]) == (0.0, 0.0)
    assert float(numbers["loss/alpha"]) > 0
    assert float(numbers["loss/scale"]) > 0
