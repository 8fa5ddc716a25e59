"""Runs that start from a body with a skeleton: what a ControlNet is shown, what the run keeps, and the export that bends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import export
from config import Config, ConfigError, load
from scene.meshes.gltf_file import GltfFile
from scene.skeleton.file import read_skeleton
from tests.bodies import JOINTS, in_the_world, write_body
from tests.changed import changed
from tests.tiny_diffusers import write_tiny_controlnet
from train import train


def test_a_body_keeps_its_skeleton_to_the_export(
    tiny_config: Config, tiny_prior: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mesh, joints = write_body(tmp_path, face=False)
    config = changed(
        tiny_config,
        controlnet_model_key=(str(write_tiny_controlnet(tmp_path / "net", tiny_prior, seed=1)),),
        controlnet_kinds=("pose",),
        controlnet_ratio=1.0,
        init_shape=mesh,
        init_num_pts=3000,
        skeleton=joints,
        iterations=2,
        max_scale=None,
        densify_until_iter=0,
        checkpoint_iterations=(1,),
        save_video=False,
        save_process=False,
    )
    result = train(config)
    assert (
        "nose, right_eye, left_eye, right_ear, left_ear, so their places are those of an average"
        in caplog.text
    )
    # In the middle of the view, and on the Gaussians.
    found = read_skeleton(str(result.run.skeleton))
    own = in_the_world([place for _, place in JOINTS.values()])
    scale = np.linalg.norm(found.positions[3] - found.positions[0]) / np.linalg.norm(own[3] - own[0])
    np.testing.assert_allclose(found.positions - found.positions[0], scale * (own - own[0]), atol=1e-6)
    means = result.gaussians.means.detach().double().numpy()
    away = np.linalg.norm(found.positions[:, None] - means, axis=2).min(axis=1)
    assert float(away.max()) < 0.08 * scale
    small = "--faces 300 --texture 64 --resolution 24 --views 8 --quiet --ground -o"
    out = str(tmp_path / "x.glb")
    assert export.main([str(result.run.root), *small.split(), out]) == 0
    file = GltfFile(out)
    [skin] = file.entries("skins")
    assert [file.entry("nodes", node)["name"] for node in skin["joints"]] == [*JOINTS]
    # Another skeleton is another run.
    Path(joints).write_text(Path(joints).read_text().replace("1.75", "1.74"))
    kept = result.run.checkpoints / "iteration_1.json"
    with pytest.raises(ValueError, match="made with another guide"):
        train(load(["--start_checkpoint", str(kept), "--quiet"]))


def test_a_skeleton_needs_a_body(tmp_path: Path) -> None:
    mesh, joints = write_body(tmp_path)
    pose = ["--controlnet_model_key", "net", "--controlnet_kinds", "pose"]
    load(["--init_shape", mesh, "--skeleton", joints, *pose])
    for flags, reason in (
        (["--skeleton", joints], "but init_shape pointe is no body that it belongs to"),
        (["--init_shape", mesh, "--skeleton", "gone.json"], "'gone.json', but there is no such file"),
        (["--init_shape", mesh, "--skeleton", mesh], "a path to a .json file"),
        (["--init_shape", mesh, *pose], "the picture of a skeleton, but there is none: --skeleton FILE"),
    ):
        with pytest.raises(ConfigError) as error:
            load(flags)
        assert reason in str(error.value)
