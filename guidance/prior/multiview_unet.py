"""A U-Net of several views: attention over the tokens of a whole set, and a camera beside the time.

Both are diffusers' own UNet2DConditionModel. Its class embedding, as a projection, is a perceptron of the camera that is
added to the embedding of the time, and a processor of ours joins the views for self-attention.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

VIEWS = 4
"""Views of a set."""
CAMERA_SETTINGS = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 16}
"""What a U-Net's configuration has for a camera: `guidance.camera_condition` makes the 16 numbers."""


class SetAttention:
    """Self-attention of diffusers over all tokens of a set's views, which are `views` rows in turn."""

    def __init__(self, views: int) -> None:
        from diffusers.models.attention_processor import AttnProcessor2_0

        self.views, self._plain = views, AttnProcessor2_0()

    def __call__(self, attn: Any, hidden_states: Tensor, *args: Any, **settings: Any) -> Tensor:
        """Attend within each set, for tokens [S views, L, C]."""
        joined = hidden_states.unflatten(0, (-1, self.views)).flatten(1, 2)
        found: Tensor = self._plain(attn, joined, *args, **settings)
        return found.unflatten(1, (self.views, -1)).flatten(0, 1)


def attend_across(unet: Any, views: int) -> None:
    """Have the self-attention of a U-Net see the tokens of `views` rows together."""
    unet.set_attn_processor(
        {
            name: SetAttention(views) if name.endswith("attn1.processor") else processor
            for name, processor in unet.attn_processors.items()
        }
    )


def grown(unet: Any) -> Any:
    """Return a U-Net of several views that begins with the weights of one of single views.

    The last layer of its cameras' perceptron is zero: with each view's attention to itself alone it predicts the same.
    """
    from diffusers import UNet2DConditionModel

    # What begins with _ has a list of the settings that were defaults, which would be taken as such again.
    settings = {name: value for name, value in unet.config.items() if not name.startswith("_")}
    made: Any = UNet2DConditionModel.from_config({**settings, **CAMERA_SETTINGS})
    made.load_state_dict({**made.state_dict(), **unet.state_dict()})
    nn.init.zeros_(made.class_embedding.linear_2.weight)
    nn.init.zeros_(made.class_embedding.linear_2.bias)
    attend_across(made, VIEWS)
    return made


def predicted(
    unet: Any,
    z: Tensor,
    told: Tensor,
    text: Tensor,
    camera: Tensor,
    pictures: Tensor | None = None,
    added: Callable[..., dict[str, Any]] = dict,
) -> Tensor:
    """Return what a U-Net of several views answers [S, n, C, h, w].

    Args:
        z: latents [S, n, C, h, w].
        told: the times that it is told, [S].
        text: texts [S, L, D].
        camera: cameras [S, n, 16].
        pictures: what ControlNets are shown of each view, [S, n, nets, 3, H, W].
        added: what they add to the U-Net, of the same rows, as its arguments.
    """
    n = z.shape[1]
    rows = [z.flatten(0, 1), *(part.repeat_interleave(n, dim=0) for part in (told, text))]
    more = {} if pictures is None else added(*rows, pictures.flatten(0, 1))
    found: Tensor = unet(*rows, class_labels=camera.flatten(0, 1), **more).sample
    return found.unflatten(0, (-1, n))
