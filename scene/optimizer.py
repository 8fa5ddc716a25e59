"""Adam over the parameter groups of a GaussianModel: rates, clipping, and its state as rows come and go."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from config.schema import OptimizationParams
from scene.gaussian_model import ATTRIBUTES, COLOR, GEOMETRY, GaussianModel
from scene.statistics import DensificationStats
from utils.schedules import exponential, linear

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Update:
    """Findings of a step, left on the device so that nothing has to wait for them.

    Attributes:
        gradients: norm [] of each group's gradient before clipping.
        parameters: norm [] of each group.
        made: bool [], whether all are finite; if not, the step changed nothing.
    """

    gradients: dict[str, Tensor]
    parameters: dict[str, Tensor]
    made: Tensor

    @staticmethod
    def of_all(updates: Sequence[Update]) -> Update:
        """The findings of several steps as those of one: each norm's largest, and whether all were made."""
        total, *others = updates
        for other in others:
            total = Update(
                {name: torch.maximum(norm, other.gradients[name]) for name, norm in total.gradients.items()},
                {
                    name: torch.maximum(norm, other.parameters[name])
                    for name, norm in total.parameters.items()
                },
                total.made & other.made,
            )
        return total


class GaussianOptimizer:
    """Adam (eps 1e-15) with a group for each parameter of `model`, whose rows it adds, keeps and resets.

    All changes of the number of Gaussians go through this object, so that model, Adam and statistics never disagree.

    Attributes:
        extent: size of the scene in world units; it scales the rates of the positions.
        kept: groups that `params.keep` fixes: they require no gradient, hence get no update.
        fixed: [N] bool, Gaussians that nothing changes, not even density control; None if there are none. What density
            control adds is not among them.
        stats: how each Gaussian was seen since the last refinement.
    """

    def __init__(self, model: GaussianModel, params: OptimizationParams, extent: float) -> None:
        self.model = model
        self.params = params
        self.extent = extent
        self.fixed: Tensor | None = None
        self.stats = DensificationStats.zeros(len(model), model.device)
        self.kept = (*(GEOMETRY if params.keeps_geometry else ()), *(COLOR if params.keeps_color else ()))
        for name in self.kept:
            model.raw()[name].requires_grad_(False)
        groups = [{"params": [parameter], "name": name} for name, parameter in model.raw().items()]
        self.adam = torch.optim.Adam(groups, lr=0.0, betas=params.adam_betas, eps=1e-15, fused=True)
        self.set_rates(0)

    def rates(self, step: int) -> dict[str, float]:
        """Learning rate of each group at iteration `step`, 0 of what is kept; those of opacity and f_rest are constant."""
        p, last = self.params, self.params.iterations
        rates = {
            "xyz": self.extent * exponential(step, p.position_lr_init, p.position_lr_final, last),
            "f_dc": exponential(step, p.feature_lr, p.feature_lr_final, last),
            "f_rest": p.feature_lr / 20.0,
            "opacity": p.opacity_lr,
            "scaling": exponential(step, p.scaling_lr, p.scaling_lr_final, last),
            "rotation": exponential(step, p.rotation_lr, p.rotation_lr_final, last),
        }
        return {**rates, **dict.fromkeys(self.kept, 0.0)}

    def set_rates(self, step: int) -> None:
        rates = self.rates(step)
        for group in self.adam.param_groups:
            group["lr"] = rates[group["name"]]

    def step(self, step: int) -> Update:
        """Set the rates, clip each group's gradient by `grad_clip`, update, and forget the gradients.

        Where a gradient or a parameter is not finite, nothing changes but that the gradients are forgotten. Nothing waits
        for the device.
        """
        self.set_rates(step)
        self._drop_fixed_gradients()
        update = self._measure()
        self._clip(update.gradients, step)
        # As torch.amp.GradScaler tells a fused optimizer that it has to leave out a step.
        self.adam.found_inf = (~update.made).float()  # type: ignore[attr-defined]
        self.adam.step()
        self.forget_gradients()
        return update

    def forget_gradients(self) -> None:
        self.adam.zero_grad(set_to_none=True)

    def gradients(self) -> dict[str, Tensor]:
        """Gradients by group: those that there are, and none of groups without rows."""
        raw = self.model.raw().items()
        return {name: p.grad for name, p in raw if p.grad is not None and p.numel() > 0}

    @torch.no_grad()
    def fix(self, fixed: Tensor | None) -> None:
        """Hold these Gaussians [N] (bool) fixed from here on, and forget their moments. Raises ValueError for another shape."""
        if fixed is not None and (fixed.shape != (len(self.model),) or fixed.dtype != torch.bool):
            raise ValueError(
                f"fixed is {fixed.dtype} {list(fixed.shape)}, but it must be torch.bool [{len(self.model)}]."
            )
        self.fixed = fixed
        for state in self.moments().values() if fixed is not None else ():
            for key in MOMENTS:
                state[key].masked_fill_(self._fixed_rows(state[key]), 0.0)

    @property
    def free(self) -> Tensor:
        """Whether each Gaussian may change, [N] bool."""
        if self.fixed is None:
            return torch.ones(len(self.model), dtype=torch.bool, device=self.model.device)
        return ~self.fixed

    def _fixed_rows(self, like: Tensor) -> Tensor:
        """`fixed` in a shape that meets `like` [N, ...]."""
        assert self.fixed is not None
        return self.fixed.view(-1, *[1] * (like.ndim - 1))

    def _drop_fixed_gradients(self) -> None:
        """Set the gradients of what is fixed to 0. Its moments are 0 already, so Adam's step is 0 too."""
        if self.fixed is not None:
            for gradient in self.gradients().values():
                gradient.masked_fill_(self._fixed_rows(gradient), 0.0)

    def _measure(self) -> Update:
        gradients = self.gradients()
        parameters = {name: p.detach() for name, p in self.model.raw().items() if p.numel() > 0}
        measured = [*gradients.values(), *parameters.values()]
        norms = torch.stack(torch._foreach_norm(measured))
        found = norms.unbind()
        return Update(
            gradients=dict(zip(gradients, found)),
            parameters=dict(zip(parameters, found[len(gradients) :])),
            made=(norms < math.inf).all(),
        )

    def _clip(self, norms: Mapping[str, Tensor], step: int) -> None:
        if not self.params.grad_clip:
            return
        first, last, duration = self.params.grad_clip
        limit = linear(step, first, last, duration)
        gradients = self.gradients()
        factors = (limit / torch.stack([norms[name] for name in gradients])).clamp_max(1.0)
        for gradient, factor in zip(gradients.values(), factors.unbind()):
            gradient.mul_(factor)

    def append(self, rows: Mapping[str, Tensor]) -> None:
        """Add M Gaussians that no view has seen: raw rows [M, ...] of every group, at the end, with zero moments."""
        if set(rows) != set(ATTRIBUTES):
            raise ValueError(f"rows holds {sorted(rows)}, but it must hold {sorted(ATTRIBUTES)}.")
        self._rebuild(
            lambda name, tensor: torch.cat([tensor, rows[name].to(tensor)]),
            lambda name, moment: torch.cat([moment, moment.new_zeros(rows[name].shape)]),
        )
        self.stats.append(len(rows["xyz"]))
        if self.fixed is not None:
            self.fixed = torch.cat([self.fixed, self.fixed.new_zeros(len(rows["xyz"]))])

    def keep(self, mask: Tensor) -> None:
        """Keep the Gaussians where `mask` [N] is true, with their moments and statistics."""
        if mask.shape != (len(self.model),) or mask.dtype != torch.bool:
            raise ValueError(
                f"mask is {mask.dtype} {list(mask.shape)}, but it must be torch.bool [{len(self.model)}]."
            )
        self._rebuild(lambda name, tensor: tensor[mask], lambda name, moment: moment[mask])
        self.stats.keep(mask)
        if self.fixed is not None:
            self.fixed = self.fixed[mask]

    @torch.no_grad()
    def replace(self, name: str, values: Tensor, rows: Tensor | None = None) -> None:
        """Set group `name`, or its `rows` (indices [M]), to `values` in place and clear the moments there.

        All rows are those that are not fixed; rows that are named must not be fixed.
        """
        parameter = self.model.raw()[name]
        where = slice(None) if rows is None else rows
        if rows is None and self.fixed is not None:
            values = torch.where(self._fixed_rows(parameter), parameter, values)
        parameter[where] = values
        for key in MOMENTS:
            if key in self.adam.state[parameter]:
                self.adam.state[parameter][key][where] = 0.0

    @torch.no_grad()
    def dim(self, name: str, factor: float, where: Tensor) -> None:
        """Multiply group `name` by `factor` and clear its moments, if `where`: a bool [] on the device, which is not waited for.
        What is fixed stays."""
        parameter = self.model.raw()[name]
        if self.fixed is not None:
            where = where & ~self._fixed_rows(parameter)
        parameter.mul_(torch.where(where, factor, 1.0))
        for key in MOMENTS:
            if key in self.adam.state[parameter]:
                self.adam.state[parameter][key].mul_(~where)

    @torch.no_grad()
    def clamp(self, name: str, **bounds: float) -> None:
        """Clamp group `name` in place to `bounds`, those of `torch.clamp`; what is fixed and the moments stay."""
        parameter = self.model.raw()[name]
        if self.fixed is None:
            parameter.clamp_(**bounds)
        else:
            parameter.copy_(torch.where(self._fixed_rows(parameter), parameter, parameter.clamp(**bounds)))

    @torch.no_grad()
    def _rebuild(
        self, new_tensor: Callable[[str, Tensor], Tensor], new_moment: Callable[[str, Tensor], Tensor]
    ) -> None:
        """Replace every parameter and its moments by ones with another number of rows; drops gradients."""
        for group in self.adam.param_groups:
            name, old = group["name"], group["params"][0]
            parameter = nn.Parameter(new_tensor(name, old.detach()), requires_grad=old.requires_grad)
            state = self.adam.state.pop(old, None)
            if state:
                state.update({key: new_moment(name, state[key]) for key in MOMENTS})
                self.adam.state[parameter] = state
            group["params"][0] = parameter
            self.model.set_raw({name: parameter})

    def moments(self) -> dict[str, dict[str, Tensor]]:
        """Adam's own state of each group: MOMENTS, shaped as the parameter, and its count "step"; {} before the first step."""
        return {
            name: dict(self.adam.state[parameter])
            for name, parameter in self.model.raw().items()
            if self.adam.state.get(parameter)
        }

    def set_moments(self, moments: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Continue from what `moments` gave, copied.

        Raises ValueError for another number of rows, KeyError for a missing tensor.
        """
        for name, state in moments.items():
            parameter = self.model.raw()[name]
            for key in MOMENTS:
                if state[key].shape != parameter.shape:
                    raise ValueError(
                        f"Adam's {key} of {name} has shape {list(state[key].shape)}, "
                        f"but the parameter has {list(parameter.shape)}."
                    )
            self.adam.state[parameter] = {
                key: state[key].to(parameter.device, copy=True) for key in (*MOMENTS, "step")
            }
