"""Settings that all tests share."""

import os

from hypothesis import settings

# Tests that run side by side share the cores: read by torch's threads, before torch is there.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

# How long an example takes says nothing about whether it is right.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")
