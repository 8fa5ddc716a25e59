"""What `edit_mask` names, by each kind of value, and mistakes in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement
from torch import Tensor

from config import Config, ConfigError, load
from scene.cameras import six_views
from scene.cameras_json import cameras_json, read_cameras_json
from scene.gaussian_model import GaussianModel
from scene.optimizer import MOMENTS, GaussianOptimizer
from tests.changed import changed
from training.edit_mask import fixed_by_mask
from utils.media import write_png


@pytest.fixture(scope="module")
def gaussians() -> GaussianModel:
    """A cube of 6³ small opaque Gaussians, 1 on a side."""
    grid = torch.cartesian_prod(*[torch.linspace(-0.5, 0.5, 6)] * 3)
    model = GaussianModel.from_points(grid, torch.full_like(grid, 0.5), 0, 0.9)
    model._scales.data.fill_(-2.5)
    return model


def inside(value: str, config: Config, gaussians: GaussianModel) -> Tensor:
    fixed = fixed_by_mask(changed(config, edit_mask=value), gaussians)
    assert fixed is not None
    return ~fixed


def write_points(path: Path, points: Tensor, marked: Tensor) -> str:
    """Write points that are magenta, nearly, where they are marked."""
    table = np.zeros(
        len(points), [(axis, "f4") for axis in "xyz"] + [(c, "u1") for c in ("red", "green", "blue")]
    )
    for axis, column in zip("xyz", points.numpy().T):
        table[axis] = column
    table["red"], table["blue"] = np.where(marked, 250, 200), np.where(marked, 240, 0)
    PlyData([PlyElement.describe(table, "vertex")]).write(str(path))
    return str(path)


def test_every_kind_of_mask_names_its_gaussians(
    tiny_config: Config, gaussians: GaussianModel, tmp_path: Path
) -> None:
    means = gaussians.means.detach()
    right = means[:, 1] > 0
    found = inside("box:-9,0,-9,9,9,0.2", tiny_config, gaussians)
    assert torch.equal(found, right & (means[:, 2] <= 0.2))
    found = inside("sphere:0.5,0.5,0.5,0.3", tiny_config, gaussians)
    assert torch.equal(found, ((means - 0.5).norm(dim=1) <= 0.3))
    # A point of another program for each of ours, and a little beside it.
    painted = write_points(tmp_path / "painted.ply", means.flip(0) + 0.01, right.flip(0))
    assert torch.equal(inside(painted, tiny_config, gaussians), right)
    np.save(tmp_path / "words.npy", right.numpy())
    assert torch.equal(inside(str(tmp_path / "words.npy"), tiny_config, gaussians), right)


def test_masks_of_views_are_lifted_to_what_is_seen_in_them(
    tiny_config: Config, gaussians: GaussianModel, tmp_path: Path
) -> None:
    """The upper third of the cube, cut along a gap between its Gaussians, in masks of half the cameras' size."""
    cameras = six_views(changed(tiny_config, default_polar=90.0).camera)
    (tmp_path / "cameras.json").write_text(cameras_json(cameras))
    read = read_cameras_json(tmp_path / "cameras.json")
    for index, (name, camera) in enumerate(read.items()):
        for key in ("viewmats", "focals", "principals"):
            torch.testing.assert_close(getattr(camera, key), getattr(cameras[[index]], key))
        size = camera.height // 2
        mask = torch.zeros(3, size, size)
        # Perspective moves the cut by less than the gap.
        cut = size / 2 - 0.2 * float(camera.focals[0, 1]) / 2 / float(camera.radius[0])
        mask[:, : round(cut)] = 1
        write_png(tmp_path / f"{name}.png", mask)
    found = inside(str(tmp_path), tiny_config, gaussians)
    expected = gaussians.means.detach()[:, 2] > 0.2
    # The inner ones, of which little is seen, may be on either hand.
    outer = (gaussians.means.detach().abs() > 0.45).any(dim=1)
    assert float((found == expected)[outer].float().mean()) > 0.95
    (tmp_path / "view_060.png").unlink()
    assert torch.equal(inside(str(tmp_path), tiny_config, gaussians)[outer], found[outer])


def test_gaussians_that_are_fixed_in_the_midst_of_a_run_lose_their_momentum(gaussians: GaussianModel) -> None:
    optimizer = GaussianOptimizer(GaussianModel(gaussians.state_dict()), Config().optimization, 1.0)
    fixed = torch.arange(len(gaussians)) % 3 == 0

    def step() -> None:
        for parameter in optimizer.model.raw().values():
            parameter.grad = torch.full_like(parameter, float("nan") if optimizer.fixed is not None else 1.0)
            parameter.grad[~fixed] = 1.0
        assert bool(optimizer.step(1).made)

    step()
    optimizer.fix(fixed)
    before = optimizer.model.state_dict()
    step()
    for name, parameter in optimizer.model.raw().items():
        if parameter.numel():
            same = (parameter.detach() == before[name]).flatten(1).all(dim=1)
            assert torch.equal(same, fixed), name
            assert all(not bool(optimizer.moments()[name][key][fixed].any()) for key in MOMENTS)


def test_mistakes_are_sentences(tiny_config: Config, gaussians: GaussianModel, tmp_path: Path) -> None:
    for value, words in (
        ("box:0,0,0,1,1", "edit_mask is 'box:0,0,0,1,1'"),
        ("sphere:0,0,0,-1", "radius above 0"),
        ("box:1,0,0,0,1,1", "below its partner"),
        (str(tmp_path / "not-there.ply"), "there is no such file"),
        ("the hat", "there is no such folder"),
    ):
        with pytest.raises(ConfigError, match=words):
            load(["--edit_mask", value])
    np.save(tmp_path / "short.npy", np.ones(3, bool))
    means = gaussians.means.detach()
    plain = write_points(tmp_path / "plain.ply", means, torch.zeros(len(means), dtype=torch.bool))
    (tmp_path / "cameras.json").write_text(cameras_json(six_views(tiny_config.camera)))
    for value, words in (
        ("sphere:9,9,9,1", "none of the 216 Gaussians is in it: the asset reaches from"),
        (str(tmp_path / "short.npy"), r"truth values \[216\]"),
        (plain, "no point that is painted magenta"),
        (str(tmp_path), "no mask for any view"),
    ):
        with pytest.raises(ValueError, match=words):
            inside(value, tiny_config, gaussians)
