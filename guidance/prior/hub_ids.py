"""Ids of models that have left the hub, or never were there, and where their weights are."""

from __future__ import annotations

import re

RENAMED = {
    r"stabilityai/(stable-diffusion-2[\w.-]*)": r"sd2-community/\1",
    r"runwayml/(stable-diffusion-v1-5|stable-diffusion-inpainting)": r"stable-diffusion-v1-5/\1",
    # These hold checkpoints alone; the same weights in diffusers layout are beside them.
    r"CompVis/stable-diffusion-v-1-(\d)-original": r"CompVis/stable-diffusion-v1-\1",
    r"CompVis/stable-diffusion": r"CompVis/stable-diffusion-v1-4",
}
"""Patterns of ids that are no longer to be had -> where the same weights are now."""
BARE = {
    r"(stable-diffusion-2[\w.-]*)": r"stabilityai/\1",
    r"(stable-diffusion-v1-5|stable-diffusion-inpainting)": r"runwayml/\1",
    r"(stable-diffusion-v1-[1-4]|stable-diffusion-v-1-\d-original)": r"CompVis/\1",
}
"""Names without an owner, as older files have them -> the id that was meant."""


def homes_of(model_id: str) -> list[str]:
    """Return the ids under which a model's files may be in the cache, in turn; the last one is where they are now."""
    found = [model_id]
    for patterns in (BARE, RENAMED):
        for pattern, replacement in patterns.items():
            if match := re.fullmatch(pattern, found[-1]):
                found.append(match.expand(replacement))
                break
    return found
