"""Turns of two priors."""

from __future__ import annotations

import pytest

from config import Config, ConfigError, load
from config.mixing import guides, share_at
from tests.changed import changed


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.75, 1.0])
def test_turns_are_the_share_and_fall_evenly(share: float) -> None:
    turns = [guides(share, step, 400) for step in range(1, 401)]
    assert sum(turns) == round(400 * share)
    # In each tenth of the run as many as the share there, to one turn.
    for tenth in range(10):
        expected = 40 * share_at(share, (tenth + 0.5) / 10)
        assert abs(sum(turns[40 * tenth : 40 * tenth + 40]) - expected) <= 1
    assert share_at(share, 0) >= share >= share_at(share, 1)


def test_what_guides_when() -> None:
    one = changed(Config(), model_key="one", LoRA_path="of one", prior_image_size=512, iterations=10)
    config = changed(one, multiview_model_key="several", multiview_share=0.5)
    keys = [config.guided_at(step).guidance.model_key for step in range(1, 11)]
    assert keys[0] == "several"
    assert keys[-1] == "one"
    assert keys.count("several") == config.multiview_iterations == 5
    several, first = config.guiding_from(1)
    assert (several.guidance.model_key, several.guidance.LoRA_path) == ("several", None)
    assert several.guidance.prior_image_size is None
    assert first == config
    # The last turns are the first prior's alone, and a third one may take over from both.
    assert config.guiding_from(10) == [config]
    refined = changed(config, refine_model_key="good", refine_from_iter=5)
    keys = [refined.guided_at(step).guidance.model_key for step in range(1, 11)]
    assert sorted(keys) == ["good"] * 6 + ["one"] * 2 + ["several"] * 2
    assert [each.guidance.model_key for each in refined.guiding_from(5)] == ["good"]
    assert [each.guidance.model_key for each in changed(config, multiview_share=1.0).guiding_from(1)] == [
        "several"
    ]


def test_a_prior_does_not_take_turns_with_itself() -> None:
    with pytest.raises(ConfigError, match="multiview_model_key is 'toybox', but must be another prior"):
        load(["--model_key", "toybox", "--multiview_model_key", "toybox"])
