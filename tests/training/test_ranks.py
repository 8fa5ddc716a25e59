"""Several processes on one asset: torchrun, with gloo on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as multiprocessing

from scene.gaussian_model import GaussianModel
from utils.ranks import ALONE, Ranks, RanksDiffer, meeting

ROOT = Path(__file__).parents[2]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

SMALL = [
    "--quiet",
    "--text",
    "mug",
    "--init_shape",
    "sphere",
    "--init_num_pts",
    "300",
    "--image_w",
    "48",
    "--image_h",
    "48",
    "--C_batch_size",
    "4",
]
DENSIFIED = [
    "--densify_from_iter",
    "4",
    "--densify_until_iter",
    "45",
    "--densification_interval",
    "8",
    "--densify_grad_threshold",
    "1e-9",
    "--relocate_interval",
    "10",
    "--opacity_reset_interval",
    "25",
    "--max_num_gaussians",
    "900",
]
AUGMENTED = [
    "--sh_degree",
    "1",
    "--bg_aug_ratio",
    "1",
    "--flip_aug_ratio",
    "0.5",
    "--shs_aug_ratio",
    "0.5",
    "--as_latent_ratio",
    "0.3",
    "--jitter_pose",
    "true",
    "--BEG",
    "true",
    "--start_reset_iter",
    "5",
    "--end_reset_iter",
    "20",
    "--lgt_thresh",
    "0.6",
]


def run(script: str, *arguments: str, ranks: int, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [*(TORCHRUN if ranks == 2 else TORCHRUN[:1]), str(ROOT / script), *arguments]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, text=True, capture_output=True)


def result(folder: Path, flags: list[str], *, ranks: int, views_at_once: int) -> list[dict[str, Any]]:
    """Run tests/ranks.py and return what each process leaves."""
    file = folder / f"{ranks}-{views_at_once}"
    done = run("tests/ranks.py", str(file), str(views_at_once), *flags, ranks=ranks, cwd=folder)
    assert done.returncode == 0, done.stderr
    return [torch.load(file.with_suffix(f".{rank}")) for rank in range(ranks)]


def check_two_are_one(folder: Path, flags: list[str]) -> None:
    (one,) = result(folder, flags, ranks=1, views_at_once=2)
    first, second = result(folder, flags, ranks=2, views_at_once=2)
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
    """Compare 50 iterations with densification, relocation, resets and every augmentation.

    Rounding depends on how many views go through a network together. Adam makes steps of it wherever a gradient is
    nothing but rounding (the rotations of round Gaussians): hence the halves.
    """
    check_two_are_one(
        tmp_path, [*SMALL, *DENSIFIED, *AUGMENTED, "--iterations", "50", "--model_key", str(tiny_prior)]
    )


@pytest.mark.slow
def test_they_do_with_toybox_too(tmp_path: Path) -> None:
    check_two_are_one(tmp_path, [*SMALL, *DENSIFIED, *AUGMENTED, "--iterations", "50"])


@pytest.fixture
def flags(tiny_prior: Path) -> list[str]:
    files = "--save_video false --test_ratio 1 --vis_interval 1000 --pro_frames_num 2 --workspace both"
    return [*SMALL, *files.split(), "--model_key", str(tiny_prior)]


def test_one_process_writes_and_speaks_for_both(flags: list[str], tmp_path: Path) -> None:
    done = run("train.py", *flags, "--iterations", "4", ranks=2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Asset outputs/both/") == 1
    (root,) = (tmp_path / "outputs" / "both").iterdir()
    assert not GaussianModel.load_ply(root / "save" / "asset.ply").nonfinite()
    assert len(list(root.glob("events.*"))) == 1


def test_too_few_views_are_one_sentence(flags: list[str], tmp_path: Path) -> None:
    done = run("train.py", *flags, "--C_batch_size", "1", ranks=2, cwd=tmp_path)
    assert done.returncode != 0
    # By both of them, for whoever ends first takes the other along.
    assert (
        "train.py: GuidanceParams.C_batch_size is 1, but 2 processes need as many views: --C_batch_size 2.\n"
        in done.stderr
    )
    assert "Traceback" not in done.stderr.split("torch/distributed")[0]
    assert not list(tmp_path.rglob("config.yaml"))


@pytest.mark.slow
def test_a_signal_to_torchrun_keeps_the_run_and_two_processes_go_on(flags: list[str], tmp_path: Path) -> None:
    flags = [*flags, *DENSIFIED, "--iterations", "40"]
    whole = run("train.py", *flags, "--workspace", "whole", ranks=2, cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
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
    resumed = run("train.py", "--resume", str(cut), "--quiet", ranks=2, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    (other,) = (tmp_path / "outputs" / "whole").iterdir()
    assert (cut / "save" / "asset.ply").read_bytes() == (other / "save" / "asset.ply").read_bytes()


def meet(rank: int, port: int) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
    ranks = Ranks(rank, 2, rank)
    with meeting(ranks, torch.device("cpu")):
        tensor, radii = torch.arange(3.0) + rank, torch.tensor([rank, 1 - rank])
        ranks.sum_([tensor])
        ranks.max_(radii)
        assert tensor.tolist() == [1, 3, 5]
        assert radii.tolist() == [1, 1]
        assert ranks.all_views(torch.arange(5.0)[ranks.share(5).start : ranks.share(5).stop], 5).tolist() == [
            0,
            1,
            2,
            3,
            4,
        ]
        assert ranks.least(7 - rank, tensor.device) == 6
        assert ranks.greatest(-rank, tensor.device) == 0
        taken = torch.full((2,), float(rank))
        ranks.take_from_first([taken])
        assert taken.tolist() == [0, 0]
        same = torch.linspace(0, 1, 50)
        ranks.check_same([same], "These numbers")
        # Two rows exchanged: the same numbers in another order.
        other = same.clone() if rank == 0 else same[[1, 0, *range(2, 50)]]
        with pytest.raises(RanksDiffer, match="These numbers of process 1 are not those of process 0"):
            ranks.check_same([same, other], "These numbers")


def test_what_processes_tell_each_other() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(meet, args=(port,), nprocs=2)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("views", [1, 4, 8, 9])
def test_shares_are_all_views_evenly(views: int, count: int) -> None:
    shares = [Ranks(rank, count).share(views) for rank in range(count)]
    assert [view for share in shares for view in share] == list(range(views))
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1


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
