"""Subjects that view.py opens: runs, finished or not, and files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

import config as configuration
from exporting.formats import write_splats
from exporting.targets import Frame
from gaussian_renderer import render
from scene.asset import Asset
from scene.gaussian_model import GaussianModel
from utils.device import HOST
from utils.files import write_text
from utils.run_folder import RunFolder
from viewer.orbit import cameras_at
from viewer.subject import open_subject


def ball(center: tuple[float, float, float], size: float = 1.0) -> GaussianModel:
    """400 Gaussians on a sphere of that radius."""
    points = torch.nn.functional.normalize(torch.randn(400, 3, generator=torch.Generator().manual_seed(0)))
    return GaussianModel.from_points(
        torch.tensor(center) + size * points, torch.full((400, 3), 0.5), sh_degree=0, initial_opacity=0.9
    )


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    config = configuration.load(
        ["--text", "a red mug", "--default_radius", "3", "--white_background", "false"]
    )
    write_text(run.config, configuration.dump(config))
    return run


def test_a_run_is_seen_as_it_was_trained(run: RunFolder) -> None:
    for step, radius in ((100, 1.0), (20, 2.0)):
        ball((0, 0, 0), radius).save_ply(run.point_cloud(step))
    going = open_subject(run.root, HOST)
    assert float(going.gaussians.means.norm(dim=1).mean()) == pytest.approx(1)
    ball((0, 0, 0), 3.0).save_ply(run.asset)
    subject = open_subject(run.root, HOST)
    assert float(subject.gaussians.means.norm(dim=1).mean()) == pytest.approx(3)
    assert (subject.title, subject.front.radius, subject.white) == ("a red mug", 3.0, False)


@pytest.mark.parametrize("center", [(0.0, 0.0, 0.0), (50.0, -20.0, 3.0)])
@pytest.mark.parametrize("size", [0.1, 1.0, 100.0])
def test_a_file_fills_the_picture_wherever_it_is(
    tmp_path: Path, center: tuple[float, float, float], size: float
) -> None:
    gaussians = ball(center, size)
    # One has flown away.
    with torch.no_grad():
        gaussians.means[0] += 1000 * size
    gaussians.save_ply(tmp_path / "ball.ply")
    subject = open_subject(tmp_path / "ball.ply", HOST)
    alpha = render(subject.gaussians, cameras_at([subject.front], 64, 64), torch.zeros(3)).alpha[0, 0] > 0.3
    rows = alpha.any(1).nonzero()
    height = int(rows.max() - rows.min()) + 1
    assert 40 < height < 64


def test_files_of_other_programs_stand_upright(tmp_path: Path) -> None:
    gaussians = ball((0, 0, 3))
    bundle = tmp_path / "bundle"
    write_splats(tmp_path / "x.sog", Asset(gaussians, "z,x"))
    with zipfile.ZipFile(tmp_path / "x.sog") as file:
        file.extractall(bundle)
    write_splats(tmp_path / "x.spz", Asset(gaussians, "z,x"), Frame("-x,z"))
    for path, axes in ((tmp_path / "x.sog", None), (bundle, None), (tmp_path / "x.spz", "-x,z")):
        front = open_subject(path, HOST, axes).front
        assert front.target == pytest.approx((0, 0, 3), abs=0.2)


def test_what_is_not_there_is_told(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no Gaussians yet"):
        open_subject(run.root, HOST)
    meant = r"but it must be a run's folder, such as outputs/quickstart/a-car, or a \.ply, .* file\.$"
    with pytest.raises(ValueError, match=r"holds no config\.yaml, " + meant):
        open_subject(tmp_path, HOST)
    for gone in ("gone.ply", "gone"):
        with pytest.raises(FileNotFoundError, match=rf"{gone}' is not there, {meant}"):
            open_subject(tmp_path / gone, HOST)
