"""Runs that go on from an asset under another prompt, with its geometry or its colours kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from plyfile import PlyData
from torch import Tensor

import config as configuration
from config import Config
from scene.gaussian_model import COLOR, GEOMETRY, GaussianModel
from tests.changed import changed
from train import train

ROOT = Path(__file__).parents[2]


class Killed(BaseException):
    """Stand-in for the end of a process."""


@pytest.fixture
def asset(tmp_path: Path) -> Path:
    """300 Gaussians with colours by direction, some of them faint or large."""
    rng = torch.Generator().manual_seed(4)
    model = GaussianModel.from_points(
        torch.rand(300, 3, generator=rng) - 0.5, torch.rand(300, 3, generator=rng), 1
    )
    with torch.no_grad():
        model._features_rest.normal_(std=0.1, generator=rng)
        model._opacities.normal_(generator=rng)[::10] = -8.0
        model._scales[::7] += 1.0
    model.save_ply(tmp_path / "asset.ply")
    return tmp_path / "asset.ply"


@pytest.fixture
def config(tiny_config: Config, asset: Path) -> Config:
    """Ten iterations in which Gaussians are cloned, split, pruned, moved, made faint, capped, dimmed and lifted."""
    return changed(
        tiny_config,
        guidance_type="sds",
        image_w=32,
        image_h=32,
        C_batch_size=2,
        pretrained_model_path=str(asset),
        save_video=False,
        sh_degree=1,
        densify_grad_threshold=1e-9,
        opacity_reset_interval=7,
        relocate_interval=3,
        max_scale=0.05,
        min_color=0.3,
        as_latent_ratio=0.5,
        BEG=True,
        start_reset_iter=2,
        end_reset_iter=9,
        lgt_thresh=0.0,
    )


def rows(model: GaussianModel, groups: tuple[str, ...]) -> Tensor:
    """Numbers [N, D] of all `groups` of each Gaussian."""
    return torch.cat([model.raw()[name].detach().flatten(1) for name in groups], dim=1)


def edits(config: Config, tmp_path: Path) -> Iterator[GaussianModel]:
    """Yield the Gaussians that the run ends in, as a whole and after it was killed and resumed."""

    def kill(step: int) -> None:
        if step == 5:
            raise Killed

    whole = train(config, tmp_path / "whole")
    yield whole.gaussians
    with pytest.raises(Killed):
        train(changed(config, checkpoint_iterations=(5,)), tmp_path / "cut", kill)
    (file,) = (tmp_path / "cut").rglob("config.yaml")
    resumed = train(configuration.load(["--resume", str(file.parent), "--quiet"]))
    assert resumed.run.asset.read_bytes() == whole.run.asset.read_bytes()
    yield resumed.gaussians


def test_geometry_is_kept_to_the_last_bit(config: Config, asset: Path, tmp_path: Path) -> None:
    begun = GaussianModel.load_ply(asset)
    ended = train(changed(config, keep="geometry", iterations=8), tmp_path).gaussians
    assert torch.equal(rows(ended, GEOMETRY), rows(begun, GEOMETRY))
    assert not torch.equal(ended._features_dc, begun._features_dc)


def test_colours_are_kept_to_the_last_bit(config: Config, asset: Path, tmp_path: Path) -> None:
    begun = GaussianModel.load_ply(asset)
    for ended in edits(changed(config, keep="color"), tmp_path):
        # Density control has been at work, and its copies have the colours of what they are copies of.
        assert len(ended) != len(begun)
        known = {tuple(row) for row in rows(begun, COLOR).tolist()}
        assert {tuple(row) for row in rows(ended, COLOR).tolist()} <= known
    still = changed(config, keep="color", densify_until_iter=0, relocate_interval=0, iterations=4)
    ended = train(still, tmp_path / "still").gaussians
    assert torch.equal(rows(ended, COLOR), rows(begun, COLOR))
    assert not torch.equal(rows(ended, GEOMETRY), rows(begun, GEOMETRY))


def test_what_the_mask_leaves_out_is_kept_to_the_last_byte(
    config: Config, asset: Path, tmp_path: Path
) -> None:
    def lines(file: Path) -> list[bytes]:
        return [row.tobytes() for row in PlyData.read(str(file))["vertex"].data]

    begun, means = lines(asset), GaussianModel.load_ply(asset).means
    fixed = [line for line, x in zip(begun, means[:, 0].tolist()) if x > 0]
    # Large and faint ones are among them, and every iteration would change them all.
    masked = changed(
        config, edit_mask="box:-9,-9,-9,0,9,9", raster_steps=2, vram_O=True, max_screen_radius=2.0
    )
    for number, ended in enumerate(edits(masked, tmp_path)):
        ended.save_ply(tmp_path / f"{number}.ply")
        found = lines(tmp_path / f"{number}.ply")
        assert [line for line in found if line in {*fixed}] == fixed
        assert len(found) != len(begun)
        assert not {*found} & ({*begun} - {*fixed})


@pytest.mark.thorough
def test_a_red_toy_becomes_blue_and_keeps_its_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The preset's own settings start from the true red toy, before a judge who wants to see a blue one."""
    from toybox.captions import parse
    from toybox.lab.assess import assess
    from toybox.splats import canonical

    monkeypatch.chdir(tmp_path)
    toy = canonical(parse("a red mushroom"))
    red = GaussianModel(
        {
            "xyz": toy.means,
            "f_dc": toy.shs,
            "f_rest": torch.empty(len(toy), 0, 3),
            "opacity": torch.logit(toy.opacities),
            "scaling": toy.scales.log(),
            "rotation": toy.rotations,
        }
    )
    red.save_ply("red.ply")
    flags = ["--quiet", "--save_video", "false", "--pretrained_model_path", "red.ply", "--text"]
    config = configuration.load(["--opt", str(ROOT / "config/edit.yaml"), *flags, "a blue mushroom"])
    assert assess(red, "a red mushroom", config).recognised > 0.9
    assert assess(red, "a blue mushroom", config).recognised < 0.1
    blue = train(config).gaussians
    found = assess(blue, "a blue mushroom", config)
    assert found.recognised > 0.7  # 82% where it was measured
    assert found.chamfer < 1e-3
