"""Devices without a backend of their own: the same images and gradients through copies on the host."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from diff_gaussian_rasterization import batched, rasterize


def test_images_gradients_and_means_survive_the_journey(tools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = tools.scene(60, views=3)

    def run() -> list[Any]:
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in scene.gaussians.items()}
        out = rasterize(**leaves, **scene.cameras)
        (out.rgb.square().sum() + (out.depth * out.alpha).sum()).backward()
        grads = [leaf.grad for leaf in leaves.values()]
        return [out.rgb, out.depth, out.alpha, out.radii, out.means2d, out.means2d.grad, *grads]

    direct = run()
    monkeypatch.setitem(batched.BACKENDS, "cpu", batched.through_host)
    for one, two in zip(direct, run()):
        assert torch.equal(one, two)
