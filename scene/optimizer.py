"""Adam over the parameter groups of a GaussianModel: rates, clipping, and its state as rows come and go."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from scene.gaussian_model import ATTRIBUTES, GaussianModel
from utils.schedules import exponential, linear

if TYPE_CHECKING:
    from config.schema import OptimizationParams

MOMENTS = ("exp_avg", "exp_avg_sq")


class GaussianOptimizer:
    """One Adam (eps 1e-15) with a group for each parameter of `model`, whose rows it adds, keeps and resets.

    `extent` is the size of the scene in world units; it scales the rates of the positions. All changes of the
    number of Gaussians go through this object, so that model and Adam never disagree.
    """

    def __init__(self, model: GaussianModel, params: OptimizationParams, extent: float) -> None:
        self.model = model
        self.params = params
        self.extent = extent
        groups = [{"params": [parameter], "name": name} for name, parameter in model.raw().items()]
        self.adam = torch.optim.Adam(groups, lr=0.0, betas=params.adam_betas, eps=1e-15, fused=True)
        self.set_rates(0)

    def rates(self, step: int) -> dict[str, float]:
        """Learning rate of each group at iteration `step`; those of opacity and f_rest are constant."""
        p, last = self.params, self.params.iterations
        return {
            "xyz": self.extent * exponential(step, p.position_lr_init, p.position_lr_final, last),
            "f_dc": exponential(step, p.feature_lr, p.feature_lr_final, last),
            "f_rest": p.feature_lr / 20.0,
            "opacity": p.opacity_lr,
            "scaling": exponential(step, p.scaling_lr, p.scaling_lr_final, last),
            "rotation": exponential(step, p.rotation_lr, p.rotation_lr_final, last),
        }

    def set_rates(self, step: int) -> None:
        rates = self.rates(step)
        for group in self.adam.param_groups:
            group["lr"] = rates[group["name"]]

    def clip_gradients(self, step: int) -> dict[str, float]:
        """Limit the gradient norm of each group by `grad_clip`; returns the norms from before."""
        limit = float("inf")
        if self.params.grad_clip:
            first, last, duration = self.params.grad_clip
            limit = linear(step, first, last, duration)
        norms = {}
        for name, parameter in self.model.raw().items():
            if parameter.grad is not None and parameter.numel() > 0:
                norms[name] = float(nn.utils.clip_grad_norm_(parameter, limit))
        return norms

    def step(self, step: int) -> dict[str, float]:
        """Set the rates, clip, update and forget the gradients; returns the norms before clipping.

        Raises FloatingPointError, and changes nothing, if a gradient is not finite.
        """
        self.set_rates(step)
        norms = self.clip_gradients(step)
        bad = [name for name, norm in norms.items() if not math.isfinite(norm)]
        if bad:
            raise FloatingPointError(
                f"The gradient of {', '.join(bad)} is not finite at iteration {step}; a lower guidance_scale "
                "or learning rate may help, and --detect_anomaly names the operation that made it."
            )
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        return norms

    def append(self, rows: Mapping[str, Tensor]) -> None:
        """Add M Gaussians: raw rows [M, ...] of every group, at the end, with zero moments."""
        if set(rows) != set(ATTRIBUTES):
            raise ValueError(f"rows holds {sorted(rows)}, but it must hold {sorted(ATTRIBUTES)}.")
        self._rebuild(
            lambda name, tensor: torch.cat([tensor, rows[name].to(tensor)]),
            lambda name, moment: torch.cat([moment, moment.new_zeros(rows[name].shape)]),
        )

    def keep(self, mask: Tensor) -> None:
        """Keep the Gaussians where `mask` [N] is true, with their moments."""
        if mask.shape != (len(self.model),) or mask.dtype != torch.bool:
            raise ValueError(
                f"mask is {mask.dtype} {list(mask.shape)}, but it must be torch.bool [{len(self.model)}]."
            )
        self._rebuild(lambda name, tensor: tensor[mask], lambda name, moment: moment[mask])

    @torch.no_grad()
    def replace(self, name: str, values: Tensor, rows: Tensor | None = None) -> None:
        """Set group `name`, or its `rows` (indices [M]), to `values` in place and clear the moments there."""
        parameter = self.model.raw()[name]
        where = slice(None) if rows is None else rows
        parameter[where] = values
        for key in MOMENTS:
            if key in self.adam.state[parameter]:
                self.adam.state[parameter][key][where] = 0.0

    @torch.no_grad()
    def _rebuild(
        self, new_tensor: Callable[[str, Tensor], Tensor], new_moment: Callable[[str, Tensor], Tensor]
    ) -> None:
        """Replace every parameter and its moments by ones with another number of rows; drops gradients."""
        for group in self.adam.param_groups:
            name, old = group["name"], group["params"][0]
            parameter = nn.Parameter(new_tensor(name, old.detach()))
            state = self.adam.state.pop(old, None)
            if state:
                state.update({key: new_moment(name, state[key]) for key in MOMENTS})
                self.adam.state[parameter] = state
            group["params"][0] = parameter
            self.model.set_raw({name: parameter})

    def state_dict(self) -> dict[str, Any]:
        """A copy of Adam's state; with the model's own, an exact checkpoint."""
        return copy.deepcopy(self.adam.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`, taken from an optimizer of a model with as many Gaussians.

        Raises ValueError if the numbers of rows differ.
        """
        for index, (name, parameter) in enumerate(self.model.raw().items()):
            moments = state["state"].get(index)
            if moments and moments["exp_avg"].shape != parameter.shape:
                raise ValueError(
                    f"The optimizer state of {name} has shape {list(moments['exp_avg'].shape)}, "
                    f"but the model's has {list(parameter.shape)}."
                )
        # Adam would go on to write into the tensors of `state` itself.
        self.adam.load_state_dict(copy.deepcopy(state))
