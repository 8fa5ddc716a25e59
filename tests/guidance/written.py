"""The methods' losses as the papers write them, view by view, for autograd to differentiate.

None of these formulas uses guidance/ but for its table of alpha and sigma: one step is Eq. 5 of SegmentDreamer
with its integral over lambda, and stop-gradients (`.detach()`) stand where the papers have sg or leave out the
Jacobian of the U-Net. Weights that the papers leave open are chosen as the project states them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from config.guidance_params import GuidanceParams
from guidance import Guidance
from guidance.condition import Condition
from guidance.prompts import Conditioning
from tests.draws import rngs
from tests.guidance.analytic_prior import AnalyticPrior
from tests.guidance.cases import ITERATIONS, VIEWS, latents

Tensor = Tensor
Times = dict[str, int]


class TimesOutOfOrder(Exception):
    """Error for timesteps that are not ordered as the paper has them."""


def in_order(ordered: bool) -> None:
    if not ordered:
        raise TimesOutOfOrder


@dataclass
class View:
    """A view: its prompts, its noise [1, ...] and the papers' maps of them."""

    prior: AnalyticPrior
    prompts: Conditioning
    index: int
    params: GuidanceParams
    noise: Tensor
    step: int = 0

    def alpha(self, t: int) -> float:
        return float(self.prior.schedule.alpha(torch.tensor(t)))

    def sigma(self, t: int) -> float:
        return float(self.prior.schedule.sigma(torch.tensor(t)))

    def gamma(self, t: int) -> float:
        return self.sigma(t) / self.alpha(t)

    def w(self, t: int) -> float:
        return {"sigma_over_alpha": self.gamma(t), "sigma_squared": self.sigma(t) ** 2, "one": 1.0}[
            self.params.weighting
        ]

    def noised(self, z0: Tensor, t: int) -> Tensor:
        return self.alpha(t) * z0 + self.sigma(t) * self.noise

    def eps(self, z: Tensor, t: int, condition: Condition) -> Tensor:
        return self.prior.predict(z, torch.tensor([t]), condition).eps

    def eps_y(self, z: Tensor, t: int) -> Tensor:
        return self.guided(z, t, 1.0)

    def eps_n(self, z: Tensor, t: int) -> Tensor:
        return self.eps(z, t, self.prompts.negative[self.index])

    def eps_0(self, z: Tensor, t: int) -> Tensor:
        return self.eps(z, t, self.prompts.unconditional[self.index])

    def guided(self, z: Tensor, t: int, omega: float | None = None) -> Tensor:
        """Return eps^omega with Perp-Neg, number by number."""
        omega = self.params.guidance_scale if omega is None else omega
        n = self.eps_n(z, t)
        e_y = (self.eps(z, t, self.prompts.positive[self.index]) - n).flatten()
        total = e_y.clone()
        for negative in self.prompts.perp_negatives:
            for row, (view, weight) in enumerate(zip(negative.views.tolist(), negative.weights.tolist())):
                if view == self.index:
                    e = (self.eps(z, t, negative.condition[row]) - n).flatten()
                    total += weight * (e - torch.dot(e, e_y) / torch.dot(e_y, e_y) * e_y)
        return n + omega * total.reshape(n.shape)

    def g(self, z: Tensor, eps: Tensor, t: int, u: int) -> Tensor:
        """G_theta(z, t, u) (Eq. 5), with the integral of exp(-lambda) from lambda_t to lambda_u."""
        lambda_t, lambda_u = (math.log(self.alpha(x) / self.sigma(x)) for x in (t, u))
        integral = math.exp(-lambda_t) - math.exp(-lambda_u)
        return self.alpha(u) / self.alpha(t) * z - self.alpha(u) * eps * integral

    def f(self, z: Tensor, eps: Tensor, t: int) -> Tensor:
        """F_theta(z, t) (SegmentDreamer Sec. 4.1)."""
        return (z - self.sigma(t) * eps) / self.alpha(t)


def sds(v: View, z0: Tensor, t: Times) -> Tensor:
    """LucidDreamer Eq. 7 and 8: (w / gamma) |z_0 - sg(x_0)|^2 / 2 with x_0 predicted from z_t."""
    z_t = v.noised(z0, t["t"])
    x0 = v.f(z_t, v.guided(z_t, t["t"]), t["t"]).detach()
    return v.w(t["t"]) / v.gamma(t["t"]) * (z0 - x0).square().sum() / 2


def ism(v: View, z0: Tensor, t: Times) -> Tensor:
    """LucidDreamer's loss along its Algorithm 1: as `sds`, with |F(z_t; eps(z_s)) - sg F(z_t; eps^omega)|^2."""
    s, t_, p = t["s"], t["t"], v.params
    in_order(s < t_)

    def unguided(z: Tensor, time: int) -> Tensor:
        """LucidDreamer's code: above 1, `denoise_guidance_scale` guides away from no prompt, towards n."""
        eps, c = v.eps_0(z, time), p.denoise_guidance_scale
        return (eps if c <= 1 else eps + c * (v.eps_n(z, time) - eps)).detach()

    now = max(s - p.xs_inv_steps * p.xs_delta_t, v.prior.schedule.steps_offset)
    z = v.noised(z0, now)
    while now < s:
        after = min(now + p.xs_delta_t, s)
        z = v.g(z, unguided(z, now), now, after)
        now = after
    eps_s = unguided(z, s)
    z_t = v.g(z, eps_s, s, t_)
    target = v.f(z_t, v.guided(z_t, t_), t_).detach()
    return v.w(t_) / v.gamma(t_) * (v.f(z_t, eps_s, t_) - target).square().sum() / 2


def cds(v: View, z0: Tensor, t: Times) -> Tensor:
    """Consistent3D Eq. 10 with lambda = alpha_2 / (2 sigma_2), as the paper has it: minus the loss that works."""
    t_1, t_2 = t["t_1"], t["t_2"]
    in_order(t_2 < t_1)
    z_1 = v.noised(z0, t_1)
    eps_1 = v.guided(z_1, t_1).detach()
    z_2 = v.g(z_1, eps_1, t_1, t_2)
    d_2 = v.f(z_2, v.guided(z_2, t_2), t_2).detach()
    return (v.f(z_1, eps_1, t_1) - d_2).square().sum() / (2 * v.gamma(t_2))


def cds_released(v: View, z0: Tensor, t: Times) -> Tensor:
    """Return a loss, for want of a true one, whose gradient is Consistent3D's clamped update in its descent's sign.

    In its VE form: eps_1 at z = z_0 + gamma noise, an Euler step in gamma, and the "uniform" or "sds" weight of a stage
    whose progress also gives the scale in eps_y + scale (eps_y - eps_n) and the bound of the elements.
    """
    t_1, t_2 = t["t_1"], t["t_2"]
    in_order(t_2 < t_1)
    both = v.params.cds_stage == "both"
    done = (1 + both) * v.step / ITERATIONS
    refine = v.params.cds_stage == "refine" or (both and done >= 1)
    done -= int(both and refine)
    scale = v.params.guidance_scale * (1 - done + done * (30 if refine else 50) / 100)

    def predicted(z: Tensor, time: int) -> Tensor:
        return v.guided(v.alpha(time) * z, time, 1 + scale)

    z_1 = z0 + v.gamma(t_1) * v.noise
    eps_1 = predicted(z_1, t_1)
    update = predicted(z_1 + (v.gamma(t_2) - v.gamma(t_1)) * eps_1, t_2) - eps_1
    bound = 2 + (8 - 2) * done
    update = ((v.sigma(t_1) ** 2 if refine else 1) * update).clamp(-bound, bound)
    return (z0 - (z0 + update).detach()).square().sum() / 2


def gcs_predictions(v: View, z0: Tensor, t: Times) -> tuple[Tensor, Tensor, Tensor]:
    """L_CC (SegmentDreamer Eq. 14), F(z_e, e, empty) and the target of L_CG and L_CP."""
    e, s, t_ = t["e"], t["s"], t["t"]
    in_order(e < s < t_)
    z_e = v.noised(z0, e)
    eps_e = v.eps_0(z_e, e).detach()
    z_s = v.g(z_e, eps_e, e, s)
    z_t = v.g(z_s, v.eps_0(z_s, s).detach(), s, t_)
    eps_t = v.guided(z_t, t_).detach()
    z_s_back = v.g(z_t, eps_t, t_, s)
    g_t = v.g(z_t, v.eps_0(z_t, t_).detach(), t_, e)
    l_cc = (g_t - v.g(z_s_back, v.eps_0(z_s_back, s), s, e).detach()).square().sum()
    g_y = v.g(z_t, eps_t, t_, e)
    return l_cc, v.f(z_e, eps_e, e), v.f(g_y, v.guided(g_y, e), e).detach()


def gcs(v: View, z0: Tensor, t: Times) -> Tensor:
    """Return w_cc L_CC + w_gc L_CG of Eq. 14."""
    l_cc, clean, target = gcs_predictions(v, z0, t)
    return v.params.w_cc * l_cc + v.params.w_gc * (clean - target).square().sum()


def sctd(v: View, z0: Tensor, t: Times) -> Tensor:
    """SegmentDreamer Eq. 10 with b = w / (2 alpha_{s_m}), along Eq. 11.

    G(z_t, empty) := z_{s_m} if `approximate` (Sec. 4.4), and G(z_t, n) has its derivative. Otherwise nothing but
    sg(.) stops the gradient.
    """
    s_m, s, t_, p = t["s_m"], t["s"], t["t"], v.params
    in_order(s_m <= s < t_)
    z_sm, z_t = sctd_trajectory(v, z0, s_m, s, t_, t_ > p.t_threshold)
    if p.approximate:
        z_t = z_t.detach()
        origin = across = z_sm
        if v.prompts.has_negative:
            across = z_sm + (v.g(z_t, v.eps_n(z_t, t_), t_, s_m) - z_sm).detach()
    else:
        origin = across = v.g(z_t, v.eps_0(z_t, t_), t_, s_m)
        if v.prompts.has_negative:
            across = v.g(z_t, v.eps_n(z_t, t_), t_, s_m)
    z_s = v.g(z_t, v.eps_y(z_t, t_), t_, s).detach()
    g_s = v.g(z_s, v.eps_0(z_s, s), s, s_m).detach()
    g_y = v.g(z_t, v.eps_y(z_t, t_), t_, s_m).detach()
    b = v.w(t_) / (2 * v.alpha(s_m))
    within, between = (g_s - origin).square().sum(), (across - g_y).square().sum()
    return b * (p.w_self * within + (p.guidance_scale + 1) ** 2 * between)


def sctd_trajectory(v: View, z0: Tensor, s_m: int, s: int, t: int, two_steps: bool) -> tuple[Tensor, Tensor]:
    """Return z_{s_m} and z_t of Eq. 11."""
    z_sm = v.noised(z0, s_m)
    if two_steps and s > s_m:
        z_s = v.g(z_sm, v.eps_0(z_sm, s_m), s_m, s)
        return z_sm, v.g(z_s, v.eps_0(z_s, s), s, t)
    return z_sm, v.g(z_sm, v.eps_0(z_sm, s_m), s_m, t)


def sctd_released(v: View, z0: Tensor, t: Times) -> Tensor:
    """Return a loss, for want of a true one, with the gradient w [(G_s - z_{s_m}) + (omega + 1) (z_{s_m} - G_y)]."""
    s_m, s, t_, omega = t["s_m"], t["s"], t["t"], v.params.guidance_scale
    in_order(s_m <= s < t_)
    z_sm, z_t = sctd_trajectory(v, z0, s_m, s, t_, t_ >= v.params.t_threshold)
    eps_t = v.guided(z_t, t_)
    z_s = v.g(z_t, eps_t, t_, s)
    g_s, g_y = v.g(z_s, v.eps_0(z_s, s), s, s_m), v.g(z_t, eps_t, t_, s_m)
    gradient = v.w(t_) * ((g_s - z_sm) + (omega + 1) * (z_sm - g_y))
    return (gradient.detach() * z0).sum()


def pixel_loss(v: View, variant: str, image: Tensor, z0: Tensor, t: Times) -> Tensor:
    """Return w_cp |D(F(z_e, e, empty)) - sg D(F(G_y, e, y))|^2 (Eq. 14); e is s_m for SCTD.

    The image [1, ...] stands in the place of the first D for the derivative.
    """
    if variant == "gcs":
        _, clean, target = gcs_predictions(v, z0, t)
        w_cp = 0.5 if v.params.w_cp is None else v.params.w_cp
    else:
        s_m, s, t_ = t["s_m"], t["s"], t["t"]
        z_sm, z_t = sctd_trajectory(v, z0, s_m, s, t_, t_ >= v.params.t_threshold)
        g_y = v.g(z_t, v.guided(z_t, t_), t_, s_m)
        clean, target = v.f(z_sm, v.eps_0(z_sm, s_m), s_m), v.f(g_y, v.guided(g_y, s_m), s_m)
        w_cp = v.params.w_cp or 0.0
    shown = v.prior.decode(clean.detach())
    image = image + (shown - image).detach()
    return v.params.rgb_scale * w_cp * (image - v.prior.decode(target.detach())).square().sum()


LOSSES: dict[str, Callable[[View, Tensor, Times], Tensor]] = {
    "sds": sds,
    "ism": ism,
    "cds": cds,
    "cds released": cds_released,
    "gcs": gcs,
    "sctd": sctd,
    "sctd exact": sctd,
    "sctd released": sctd_released,
}


def written_gradient(
    variant: str,
    prior: AnalyticPrior,
    params: GuidanceParams,
    prompts: Conditioning,
    images: Tensor,
    noise: Tensor,
    times: dict[str, Tensor],
    step: int,
) -> Tensor:
    """Return lambda times the written loss's derivative, pixel term included, by the images [V, ...]."""
    images = images.detach().requires_grad_()
    total = torch.zeros((), dtype=images.dtype)
    for index in range(len(images)):
        view = View(prior, prompts, index, params, noise.expand_as(prior.encode(images))[index, None], step)
        z0 = prior.encode(images[index, None])
        at = {name: int(t[index]) for name, t in times.items()}
        share = 1 / len(images) if variant == "gcs" else -1 if variant == "cds" else 1
        total = total + share * LOSSES[variant](view, z0, at)
        if variant in ("gcs", "sctd released"):
            total = total + pixel_loss(view, variant, images[index, None], z0.detach(), at) / len(images)
    return params.lambda_guidance * torch.autograd.grad(total, images)[0]


def both_gradients(
    variant: str, guide: Guidance, conditioning: Conditioning, step: int
) -> tuple[Tensor, Tensor]:
    """Return the images' gradients of the guidance and of the written loss, at the times that the guidance draws."""
    prior = guide.denoiser.prior
    images = prior.decode(latents(VIEWS)).requires_grad_()
    z0 = prior.encode(images).detach()
    with torch.no_grad():
        times = guide.method(z0, conditioning, step, rngs(len(z0), step)).times
    guide(images, conditioning, step, rngs(len(images), step)).loss.backward()
    noise = guide.method.noise(z0, rngs(len(z0)))  # type: ignore[attr-defined]
    expected = written_gradient(variant, prior, guide.params, conditioning, images, noise, dict(times), step)
    assert images.grad is not None
    return images.grad, expected
