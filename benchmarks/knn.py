"""Time simple-knn on point clouds of every kind, beside SciPy's k-d tree as it comes.

    python benchmarks/knn.py [--count 1000000] [--threads 2]

Seconds, the least of three runs, and as a multiple of ours.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from simple_knn._C import distCUDA2

REPEATS = 3


def clouds(count: int) -> dict[str, np.ndarray]:
    """Points [count, 3] by the name of their distribution."""
    rng = np.random.default_rng(0)
    uniform, normal = rng.random((count, 3)), rng.standard_normal((count, 3))
    directions = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    return {
        "cube": uniform,
        "'sphere' of init_shape": 0.5 * uniform[:, :1] * directions,
        "surface of a ball": directions,
        "50 clusters": uniform[rng.integers(50, size=count)] + 1e-4 * normal,
        "plane": uniform * [1, 1, 0],
        "line": uniform[:, :1] * directions[:1],
        "20 copies of each": uniform[rng.integers(count // 20, size=count)],
        "heavy tails (Cauchy)": rng.standard_cauchy((count, 3)),
    }


def peer(points: Tensor) -> Tensor:
    """Mean squared distances by cKDTree with its defaults, in the points' own order."""
    coordinates = points.double().numpy()
    distances, _ = cKDTree(coordinates).query(coordinates, k=4, workers=torch.get_num_threads())
    return torch.from_numpy(np.square(distances[:, 1:]).mean(axis=1)).to(points.dtype)


def seconds(function: Callable[[Tensor], Tensor], points: Tensor) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function(points)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| points | simple-knn | plain cKDTree | x ours |\n|---|---|---|---|")
    for name, cloud in clouds(arguments.count).items():
        points = torch.from_numpy(cloud).float()
        ours, theirs = seconds(distCUDA2, points), seconds(peer, points)
        print(f"| {name} | {ours:.2f} | {theirs:.2f} | {theirs / ours:.1f} |", flush=True)


if __name__ == "__main__":
    main()
