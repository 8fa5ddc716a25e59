"""The new guidance of docs/extending.md: its very text, run on the analytic prior and through the whole program."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import config as configuration
import guidance
from config import Config
from guidance import Guidance, Method
from tests.draws import rngs
from tests.guidance.analytic_prior import AnalyticPrior
from tests.tiny_diffusers import write_tiny_folder
from train import train

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


@pytest.fixture
def csd(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class that the code block defines, registered as its text describes."""
    [code] = re.findall(r"<!-- guidance example -->\n```python\n(.*?)```", PAGE.read_text(), re.S)
    assert code.count("\n") <= 40
    space: dict[str, Any] = {"__name__": "guidance.csd"}
    exec(compile(code, PAGE.name, "exec"), space)
    monkeypatch.setitem(guidance.METHODS, "csd", space["CSD"])
    return space["CSD"]


def named_csd(config: Config) -> Config:
    # What adding the name to GUIDANCE_NAMES allows; the copy is not validated again.
    return config.model_copy(update={"guidance_type": "csd"})


def test_it_reaches_the_class_and_with_the_opposite_sign_does_not(csd: Any) -> None:
    reached = {}
    for sign in (1, -1):
        prior = AnalyticPrior()
        built = guidance.build(named_csd(Config()), prior)

        class Turned:
            def __call__(self, *arguments: Any, method: Method = built.method, sign: int = sign) -> Any:
                found = method(*arguments)
                return guidance.Gradient(
                    {name: sign * part for name, part in found.parts.items()}, found.times
                )

        turned = Guidance(built.denoiser, Turned(), built.params)
        rng = torch.Generator().manual_seed(0)
        views = rngs(64)
        latents = torch.randn(64, 4, 4, 4, generator=rng).requires_grad_()
        adam = torch.optim.Adam([latents], lr=0.05)
        conditioning = prior.conditioning(0, 64)
        for step in range(300):
            adam.zero_grad()
            turned(latents, conditioning, step, views).loss.backward()
            adam.step()
        reached[sign] = int((prior.posterior(latents.detach(), 0) > 0.99).sum())
    assert reached[1] == 64
    assert reached[-1] == 0


def test_it_trains(csd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny_folder(tmp_path / "prior")
    flags = (
        "--quiet --fast false --iterations 3 --init_shape sphere --init_num_pts 200 --image_w 64 --image_h 64 --text mug "
        "--save_video false"
    )
    config = configuration.load([*flags.split(), "--model_key", str(tmp_path / "prior")])
    result = train(named_csd(config))
    assert "csd" in result.run.root.name
    assert not result.gaussians.nonfinite()
