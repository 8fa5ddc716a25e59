"""Gaussians that are fitted to the mesh they start from, and the pictures of it."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

import config as configuration
from config import Config, ConfigError
from gaussian_renderer.mesh_views import SAMPLES, mesh_views
from scene.cameras import orbit
from scene.gaussian_model import COLOR, GEOMETRY
from scene.initialize import initialize
from scene.meshes.placed import load_mesh_of_start
from tests.changed import changed
from tests.scene.meshes import checkerboard, exported, painted
from train import train
from training.mesh_fit import fit_to_mesh
from utils.device import HOST
from utils.rng import Draws
from utils.rotation import quaternion_to_matrix

FOUND = re.compile(r"PSNR (\S+) dB before, (\S+) dB after")


@pytest.fixture
def config(tiny_config: Config, tmp_path: Path) -> Config:
    """Sixty iterations of the fit of 800 Gaussians to a square of 4 × 4 colours, in views of 48²."""
    image, _ = checkerboard()
    path = exported(painted(trimesh.visual.material.SimpleMaterial(image=image)), tmp_path / "square.obj")
    keys = {"image_w": 48, "image_h": 48, "C_batch_size": 2, "save_video": False, "max_scale": 0.05}
    return changed(
        tiny_config,
        init_shape=path,
        init_axes="y,z",
        init_num_pts=800,
        init_fit_iter=60,
        iterations=3,
        **keys,
    )


def test_a_mesh_is_drawn_as_rays_meet_it(config: Config) -> None:
    """The square stands upright, faces the front, and is moved into view: its middle goes to the origin."""
    mesh = load_mesh_of_start(config.camera, Draws(0).at("init"))
    side = float(np.ptp(mesh.vertices, axis=0).max())
    assert np.ptp(mesh.vertices[:, 0]) == pytest.approx(0, abs=1e-6)
    cameras = orbit([0.0, 180.0], 90.0, 3.0, 0.5, 40, 30)
    views = mesh_views(mesh, cameras)
    _, colors = checkerboard()
    height, width = 30 * SAMPLES, 40 * SAMPLES
    reach = 3.0 * np.tan(0.25) / (height / 2)
    u = (np.arange(width) - (width - 1) / 2) * reach / side + 0.5
    v = ((height - 1) / 2 - np.arange(height)) * reach / side + 0.5
    inside = ((v >= 0) & (v <= 1))[:, None] & ((u >= 0) & (u <= 1))[None, :]
    rows, columns = (np.clip((values * 4).astype(int), 0, 3) for values in (v, u))
    picture = np.where(inside[..., None], colors[rows[:, None], columns[None, :]] / 255, 0)

    def averaged(samples: np.ndarray) -> Tensor:
        blocks = samples.reshape(30, SAMPLES, 40, SAMPLES, -1).mean(axis=(1, 3))
        return torch.from_numpy(blocks).permute(2, 0, 1).float()

    # Where an edge runs through samples, rounding decides.
    for view, (rgb, alpha) in enumerate(
        [(picture, inside[..., None]), (picture[:, ::-1], inside[:, ::-1, None])]
    ):
        for found, expected in ((views.rgb[view], averaged(rgb)), (views.alpha[view], averaged(alpha))):
            assert float(((found - expected).abs() < 1e-5).float().mean()) > 0.97


def test_discs_on_a_mesh_are_fitted_to_it(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    draws = Draws(0)
    gaussians = initialize(config, draws.at("init"), HOST)
    # The square faces the front.
    thin = quaternion_to_matrix(gaussians.rotations)[:, :, 2]
    assert float(thin.detach()[:, 0].abs().min()) > 0.999
    assert bool((gaussians.scales[:, 2] < 0.2 * gaussians.scales[:, :2].amin(dim=1)).all())
    fit_to_mesh(gaussians, config, draws)
    [found] = FOUND.findall(caplog.text)
    before, after = map(float, found)
    assert len(gaussians) == 800
    assert after > before + 4
    assert after > 24
    assert float(gaussians.scales.detach().max()) <= 0.05 * (1 + 1e-5)


def test_a_run_fits_once_and_may_keep_what_it_has_found(
    config: Config, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO)
    kept = changed(
        config, init_fit_iter=5, keep="geometry", edit_mask="box:-9,0,-9,9,9,9", checkpoint_iterations=(2,)
    )

    class Killed(BaseException):
        pass

    def kill(step: int) -> None:
        if step == 2:
            raise Killed

    with pytest.raises(Killed):
        train(kept, tmp_path / "cut", kill)
    (file,) = (tmp_path / "cut").rglob("config.yaml")
    resumed = train(configuration.load(["--resume", str(file.parent), "--quiet"]))
    assert len(FOUND.findall(caplog.text)) == 1
    begun = initialize(kept, Draws(kept.seed).at("init"), HOST)
    fit_to_mesh(begun, kept, Draws(kept.seed))
    raw, was = resumed.gaussians.raw(), begun.state_dict()
    assert all(torch.equal(raw[name], was[name]) for name in GEOMETRY)
    moved = torch.stack([(raw[name] != was[name]).flatten(1).any(dim=1) for name in COLOR]).any(dim=0)
    assert torch.equal(moved, begun.means[:, 1] >= 0)


def test_only_meshes_are_fitted_to(config: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="init_fit_iter is 5, but the start is init_shape sphere"):
        configuration.load(["--init_shape", "sphere", "--init_fit_iter", "5"])
    points = trimesh.PointCloud(np.random.default_rng(0).random((50, 3)))
    points.export(str(tmp_path / "points.ply"))
    with pytest.raises(ValueError, match="has no face with an area: only what starts from a mesh is fitted"):
        initialize(changed(config, init_shape=str(tmp_path / "points.ply")), Draws(0).at("init"), HOST)
