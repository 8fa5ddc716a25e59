"""A miniature text-to-3D world: toys, the diffusion prior that knows them, and the judge of what is made."""

from pathlib import Path


def weights_path() -> Path:
    """The folder of the shipped weights, in the layout of a diffusers pipeline (and the judge's beside it)."""
    return Path(__file__).parent / "weights"
