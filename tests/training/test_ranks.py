"""Several processes on one asset: torchrun, with gloo on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import trimesh
from PIL import Image

from config import Config
from scene.gaussian_model import GaussianModel
from tests.changed import changed
from tests.evaluation.published import TINY_CLIP, write_clip
from tests.guidance.prior.tiny_mvdream import write_base, write_mvdream
from tests.ranks import main
from tests.tiny_diffusers import write_tiny_controlnet, write_tiny_ip_adapter
from training.state import assemble
from utils.ranks import ALONE, Ranks

ROOT = Path(__file__).parents[2]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

SMALL = "--quiet --fast false --lambda_tv_l1 0 --max_scale 0.018 --text mug --init_shape sphere --init_num_pts 300 --image_w 32 --image_h 32 --C_batch_size 4"
DENSIFIED = (
    "--densify_from_iter 4 --densify_until_iter 45 --densification_interval 8 "
    "--densify_grad_threshold 1e-9 --relocate_interval 10 --opacity_reset_interval 25 "
    "--max_num_gaussians 900"
)
AUGMENTED = (
    "--sh_degree 1 --bg_aug_ratio 1 --flip_aug_ratio 0.5 --shs_aug_ratio 0.5 --as_latent_ratio 0.3 "
    "--jitter_pose true --raster_steps 2 --BEG true --start_reset_iter 5 --end_reset_iter 20 --lgt_thresh 0.6"
)
SOONER = (
    "--densification_interval 4 --relocate_interval 5 --opacity_reset_interval 9 "
    "--densify_until_iter 18 --start_reset_iter 3 --end_reset_iter 14"
)
"""Flags that do in 20 iterations what DENSIFIED and AUGMENTED do in 50."""


def torchrun(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [*TORCHRUN, str(ROOT / script), *arguments]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, text=True, capture_output=True)


def of_one_process(folder: Path, flags: list[str]) -> dict[str, Any]:
    """Run tests/ranks.py here, by one thread as elsewhere, and return what it leaves."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        main(str(folder / "one"), "2", *flags)
    finally:
        torch.set_num_threads(usual)
    return torch.load(folder / "one.0")


def of_two_processes(folder: Path, flags: list[str]) -> list[dict[str, Any]]:
    done = torchrun("tests/ranks.py", str(folder / "two"), "2", *flags, cwd=folder)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"two.{rank}") for rank in range(2)]


def check_two_are_one(folder: Path, flags: list[str]) -> None:
    one, (first, second) = of_one_process(folder, flags), of_two_processes(folder, flags)
    assert len(one["sizes"]) > 1
    assert one["sizes"] == first["sizes"] == second["sizes"]
    assert one["tensors"].keys() == first["tensors"].keys()
    for name, tensor in one["tensors"].items():
        torch.testing.assert_close(first["tensors"][name], tensor, rtol=0, atol=1e-5)
        assert torch.equal(second["tensors"][name], first["tensors"][name]), name
    assert one["dimmed"] == first["dimmed"] > 0
    assert first["evaluations"] == pytest.approx(one["evaluations"])
    for alone, shared in zip(one["logged"], first["logged"], strict=True):
        assert shared == pytest.approx(alone, rel=1e-4, abs=1e-6)


def test_two_processes_give_what_one_gives_that_takes_the_views_in_the_same_halves(
    tiny_prior: Path, tmp_path: Path
) -> None:
    """Compare 20 iterations with densification, relocation, resets, every augmentation, averages over poses, and a steered prior.

    Rounding depends on how many views go through a network together. Adam makes steps of it wherever a gradient is
    nothing but rounding (the rotations of round Gaussians): hence the halves. Beforehand the processes check what they
    exchange.
    """
    flags = f"{SMALL} {DENSIFIED} {AUGMENTED} {SOONER} --iterations 20 --guidance_type sds"
    clip = write_clip(tmp_path / "clip", TINY_CLIP)
    flags += f" --model_key {tiny_prior} --rectify_poses 0.5 --pose_model_key {clip}"
    trimesh.creation.box((0.9, 0.5, 0.4)).export(tmp_path / "box.obj")
    net = write_tiny_controlnet(tmp_path / "net", tiny_prior)
    flags += f" --controlnet_model_key {net} --controlnet_kinds depth --controlnet_ratio 1 --controlnet_guide {tmp_path}/box.obj"
    Image.new("RGB", (32, 32), "red").save(tmp_path / "front.png")
    adapter = write_tiny_ip_adapter(tmp_path / "adapter", tiny_prior)
    flags += f" --image_prompt {tmp_path}/front.png --image_prompt_model_key {adapter}"
    check_two_are_one(tmp_path, flags.split())


@pytest.mark.thorough
def test_they_do_with_sets_of_views_which_they_do_not_part(tmp_path: Path) -> None:
    prior = write_mvdream(write_base(tmp_path / "base"), tmp_path / "mvdream")
    flags = f"{SMALL} {DENSIFIED} {AUGMENTED} {SOONER} --iterations 20 --guidance_type sds --C_batch_size 8"
    check_two_are_one(tmp_path, [*flags.split(), "--model_key", str(prior)])


@pytest.mark.thorough
def test_they_do_with_toybox_too(tmp_path: Path) -> None:
    check_two_are_one(tmp_path, f"{SMALL} {DENSIFIED} {AUGMENTED} --iterations 50".split())


@pytest.fixture
def flags(tiny_prior: Path) -> list[str]:
    files = "--save_video false --test_ratio 1 --vis_interval 1000 --pro_frames_num 2 --workspace both"
    return [*f"{SMALL} {files}".split(), "--model_key", str(tiny_prior)]


def test_too_few_views_are_one_sentence(tiny_config: Config) -> None:
    for rank in range(2):
        with pytest.raises(ValueError, match=r"C_batch_size is 1, but 2 processes .*C_batch_size 2"):
            assemble(changed(tiny_config, C_batch_size=1), ranks=Ranks(rank, 2))


@pytest.mark.thorough
def test_a_mistake_is_one_sentence_of_both_processes(flags: list[str], tmp_path: Path) -> None:
    """Whoever ends first takes the other along."""
    done = torchrun("train.py", *flags, "--C_batch_size", "1", cwd=tmp_path)
    assert done.returncode != 0
    assert "train.py: GuidanceParams.C_batch_size is 1, but 2 processes need as many views" in done.stderr
    assert "Traceback" not in done.stderr.split("torch/distributed")[0]
    assert not list(tmp_path.rglob("config.yaml"))


@pytest.mark.thorough
def test_a_signal_to_torchrun_keeps_the_run_and_two_processes_go_on(flags: list[str], tmp_path: Path) -> None:
    flags = [*flags, *DENSIFIED.split(), "--iterations", "24"]
    whole = torchrun("train.py", *flags, "--workspace", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    # One process writes and speaks for both.
    (other,) = (tmp_path / "outputs" / "whole").iterdir()
    assert whole.stdout.count("Asset outputs/whole/") == 1
    assert not GaussianModel.load_ply(other / "save" / "asset.ply").nonfinite()
    assert len(list(other.glob("events.*"))) == 1
    command = [*TORCHRUN, str(ROOT / "train.py"), *flags, "--checkpoint_iterations", "[3]"]
    process = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.rglob("both/*/checkpoints/iteration_3.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    error = process.communicate()[1]
    assert process.returncode != 0
    (cut,) = (tmp_path / "outputs" / "both").iterdir()
    assert f"python train.py --resume outputs/both/{cut.name}" in error
    resumed = torchrun("train.py", "--resume", str(cut), "--quiet", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert (cut / "save" / "asset.ply").read_bytes() == (other / "save" / "asset.ply").read_bytes()


def test_shares_are_all_views_evenly() -> None:
    for sets, count, together in product((1, 4, 8, 9), (1, 2, 3, 8), (1, 4)):
        shares = [Ranks(rank, count).share(sets * together, together) for rank in range(count)]
        assert [view for share in shares for view in share] == list(range(sets * together))
        lengths = [len(share) for share in shares]
        assert max(lengths) - min(lengths) <= together
        assert not any(length % together for length in lengths)


def test_alone_nothing_changes() -> None:
    tensor = torch.tensor([1.0, 2.0])
    ALONE.sum_([tensor])
    ALONE.max_(tensor)
    ALONE.take_from_first([tensor])
    ALONE.check_same([tensor], "It")
    assert ALONE.all_views(tensor, 2) is tensor
    assert tensor.tolist() == [1, 2]
    assert ALONE.share(5) == range(5)
    assert ALONE.least(3, tensor.device) == 3
