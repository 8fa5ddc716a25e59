"""Settings that all tests share."""

import os

import pytest
from hypothesis import settings

# numba, which readers of the tests use, otherwise sets all of the process's OpenMP threads to the number of cores.
os.environ["NUMBA_NUM_THREADS"] = "1"
# Tests that run side by side share the cores: read by torch's threads, before torch is there.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

# The time that an example takes does not show whether it is right.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where torch can use none."""
    needing = [item for item in items if item.get_closest_marker("gpu")]
    if not needing:
        return
    from utils.device import HOST, resolve_device

    if resolve_device("auto") == HOST:
        for item in needing:
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))
