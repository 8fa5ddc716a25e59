"""State of a run: everything that an iteration reads and changes, from a configuration or from a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import config as configuration
import guidance
from config import Config
from guidance import Checked, Guidance, PoseRectifier, PromptEmbeddings
from guidance.prior import LatentPrior
from scene.densify import SHARE_OF_MEMORY, Refinement, bytes_per_gaussian
from scene.gaussian_model import GaussianModel
from scene.initialize import initialize
from scene.optimizer import GaussianOptimizer, Update
from scene.skeleton.placed import load_skeleton
from scene.skeleton.skeleton import Skeleton
from scene.snapshot import restore, snapshot
from training.batch_sizes import batch_shares
from training.edit_mask import fixed_by_mask
from training.memory_plan import MemoryPlan, needed_bytes, plan_memory, whole_sets
from training.mesh_fit import fit_to_mesh
from training.original import Original, original_of
from training.steering import Steering, check_image_prompt, steering
from utils.checkpoints import Checkpoint
from utils.device import HOST, free_memory, resolve_device, tune
from utils.ranks import ALONE, Ranks
from utils.rng import Draws

logger = logging.getLogger(__name__)

POSES = "poses/marginal"
"""Name of the averages over the poses in a checkpoint."""
DENSITY = ("cloned", "split", "pruned", "relocated", "opacity_resets")
"""Counts of what density control has done so far."""


@dataclass
class Counts:
    """Counts of what a run has done so far, and what was decided when it began.

    Attributes:
        seconds: time of its loop.
        core_seconds: time of this machine's processors in it, of all threads.
        evaluations: U-Net evaluations per view, summed over iterations.
        dimmed: times that Brightness-Equalised Generation has dimmed the colours.
        bad_steps: iterations left out because a gradient was not finite.
        bad_steps_in_a_row: how many of them were the last ones.
        views_at_once: views of an iteration that fit into memory together, None for all (decided).
        encode_singly: the autoencoder takes them one by one all the same (decided).
        most_gaussians: number that density control may make (decided).
        cloned, split, pruned, relocated: Gaussians that density control changed this way.
        opacity_resets: times that it brought all opacities down.
    """

    step: int = 0
    seconds: float = 0.0
    core_seconds: float = 0.0
    evaluations: float = 0.0
    dimmed: int = 0
    bad_steps: int = 0
    bad_steps_in_a_row: int = 0
    views_at_once: int | None = None
    encode_singly: bool = False
    most_gaussians: int = 0
    cloned: int = 0
    split: int = 0
    pruned: int = 0
    relocated: int = 0
    opacity_resets: int = 0

    def add(self, refinement: Refinement) -> None:
        """Count what one call of `refine` did."""
        self.cloned += refinement.cloned
        self.split += refinement.split
        self.pruned += refinement.pruned
        self.relocated += refinement.relocated
        self.opacity_resets += refinement.opacity_reset


@dataclass(frozen=True)
class Noted:
    """Findings of iteration `step` that the device has and the host has not looked at yet.

    Attributes:
        times: mean timesteps of its guidance, by name.
        update: what the optimizer found.
        dimmed: bool [], whether the colours were dimmed.
        evaluations: [], U-Net evaluations per view in all processes.
        cosine: [], between the gradient and the papers' own; None where they were not compared.
    """

    step: int
    times: Mapping[str, float]
    update: Update
    dimmed: Tensor
    evaluations: Tensor
    cosine: Tensor | None

    def numbers(self) -> list[Tensor]:
        return [
            *self.update.gradients.values(),
            *self.update.parameters.values(),
            self.dimmed.float(),
            self.evaluations,
            *([] if self.cosine is None else [self.cosine]),
        ]


@dataclass(frozen=True)
class Guiding:
    """A prior, its own configuration, and what a run has made of both: the prompts, and the call that guides."""

    config: Config
    prior: LatentPrior
    prompts: PromptEmbeddings
    guide: Guidance | Checked


@dataclass
class Training:
    """A run, or one process's part of it.

    Attributes:
        guided: the configuration of the present prior, whose model_key names it.
        steering: makes the pictures that ControlNets are shown; None in a run without.
        original: what a prior that edits is shown; None in a run without one.
        skeleton: of the body, where it stands; None in a run without, and in one that goes on and needs it no more.
        rectifier: weighs the poses of the prior that sees each view alone; None in a run without.
        waiting: the prior that takes turns with the present one, by its model_key; none in most runs.
        noted: what the device has found that the host has not looked at.
        whole: false in the middle of an iteration, when the Gaussians are those of no `counts.step`.
    """

    config: Config
    optimizer: GaussianOptimizer
    draws: Draws
    device: torch.device
    ranks: Ranks
    counts: Counts
    steering: Steering | None = None
    original: Original | None = None
    skeleton: Skeleton | None = None
    rectifier: PoseRectifier | None = None
    guided: Config = field(init=False)
    prior: LatentPrior = field(init=False)
    prompts: PromptEmbeddings = field(init=False)
    guide: Guidance | Checked = field(init=False)
    waiting: dict[str, Guiding] = field(default_factory=dict)
    noted: list[Noted] = field(default_factory=list)
    whole: bool = True

    @property
    def gaussians(self) -> GaussianModel:
        return self.optimizer.model

    def take(self, guiding: Guiding) -> None:
        """Have this prior guide from here on."""
        self.guided, self.prior = guiding.config, guiding.prior
        self.prompts, self.guide = guiding.prompts, guiding.guide

    def priors(self) -> list[LatentPrior]:
        """List the priors that are loaded, the present one first."""
        return [self.prior, *(each.prior for each in self.waiting.values())]

    def most_gaussians(self) -> int:
        """Number of Gaussians that density control may make now: where memory is short, its rest has to wait."""
        if self.device.type == HOST.type:
            # This machine's memory serves other processes too: a run's result must not depend on them.
            return self.counts.most_gaussians
        each = bytes_per_gaussian(self.config.model.sh_degree, self.config.guidance.C_batch_size)
        room = self.ranks.least(free_memory(self.device) // each, self.device)
        return min(self.counts.most_gaussians, len(self.gaussians) + room)


def assemble(
    config: Config, checkpoint: Checkpoint | None = None, ranks: Ranks = ALONE, *, force: bool = False
) -> Training:
    """A run at its start, or where a checkpoint was taken.

    Raises PriorError and ValueError, one sentence each; the latter also for a checkpoint of another run, unless `force`.
    """
    device = resolve_device(config.device, ranks.local)
    later = config.guided_at(config.optimization.iterations)
    priors = [*{each.guidance.model_key: each for each in (*config.guiding_from(1), later)}.values()]
    for prior_config in priors:
        _check_number_of_views(prior_config, ranks)
    tune(device, deterministic=config.deterministic)
    torch.autograd.set_detect_anomaly(config.detect_anomaly)
    draws = Draws(config.seed)
    params, extent = config.optimization, config.camera.default_radius
    # Before minutes of work on a start.
    skeleton = _skeleton_of(config, checkpoint, draws)
    steered = steering(config, draws, device, skeleton)
    check_image_prompt(config, device)
    original = original_of(config, priors, draws, device)
    rectifier = rectifier_of(config, 1 if checkpoint is None else checkpoint.step + 1, device)
    if checkpoint is None:
        gaussians = initialize(config, draws.at("init"), device)
        if config.camera.init_fit_iter > 0:
            fit_to_mesh(gaussians, config, draws)
        # Devices may round differently.
        ranks.take_from_first([parameter.detach() for parameter in gaussians.raw().values()])
        optimizer = GaussianOptimizer(gaussians, params, extent)
        optimizer.fix(_fixed(config, gaussians, ranks))
        counts = Counts()
    else:
        counts = _counts_of(checkpoint)
        if not force:
            _refuse_other_settings(checkpoint, config)
            _refuse_another(checkpoint, "guide", steered, "guide of the ControlNets")
            _refuse_another(checkpoint, "original", original, "original")
        optimizer = restore(checkpoint.tensors, params, extent, device)
        if _edit_mask_of(checkpoint) != params.edit_mask:
            # Only --force comes here. What the mask names, it names among the Gaussians that there are now.
            optimizer.fix(_fixed(config, optimizer.model, ranks))
    if later.guidance.model_key not in (
        each.guidance.model_key for each in config.guiding_from(counts.step + 1)
    ):
        guidance.prior.check_prior(later, device)
        if guidance.prior.rectifies(later):
            guidance.prior.load_rectifier(later, device)
    state = Training(
        config=config,
        optimizer=optimizer,
        draws=draws,
        device=device,
        ranks=ranks,
        counts=counts,
        steering=steered,
        original=original,
        skeleton=skeleton,
    )
    load_guides(state, counts.step + 1, rectifier, checkpoint, force=force)
    return state


def _skeleton_of(config: Config, checkpoint: Checkpoint | None, draws: Draws) -> Skeleton | None:
    """Load the skeleton of a run; None in one without, and in one that goes on and draws no pose."""
    drawn = "pose" in (each.kind for each in config.guidance.controlnets)
    needed = config.camera.skeleton is not None and (checkpoint is None or drawn)
    return load_skeleton(config, draws) if needed else None


def rectifier_of(config: Config, step: int, device: torch.device) -> PoseRectifier | None:
    """Load what weighs the poses of a prior of iteration `step`, anew; None in a run without. Raises: PriorError."""
    for each in config.guiding_from(step):
        if guidance.prior.rectifies(each):
            rectifier = guidance.prior.load_rectifier(each, device)
            shares = dict(zip(rectifier.classifier.poses, rectifier.classifier.shares.tolist()))
            wanted = ", ".join(f"{share:.0%} {pose}" for pose, share in shares.items())
            logger.info("RecDreamer: the poses of the views are to be %s.", wanted)
            return rectifier
    return None


def load_guides(
    state: Training,
    step: int,
    rectifier: PoseRectifier | None,
    checkpoint: Checkpoint | None = None,
    *,
    force: bool = False,
) -> None:
    """Load the prior of iteration `step`, that which takes turns with it, if any, and all that follows from them.

    How many views go through the networks at once is decided anew, unless the checkpoint is of these very priors.

    Args:
        rectifier: that of `rectifier_of`, which takes its averages from the checkpoint.
        checkpoint: where the run goes on.
        force: go on although its weights were others.
    Raises: PriorError and ValueError, one sentence each.
    """
    device, ranks, counts = state.device, state.ranks, state.counts
    configs = state.config.guiding_from(step)
    made_with = _made_with(checkpoint, configs[0].guidance.model_key)
    goes_on = all(config.guidance.model_key in made_with for config in configs)
    loaded: list[tuple[Config, LatentPrior, PromptEmbeddings]] = []
    for config in configs:
        prior, model_key = guidance.prior.load_prior(config, device), config.guidance.model_key
        if goes_on and made_with[model_key] != prior.fingerprint and not force:
            raise ValueError(
                f"The checkpoint of iteration {counts.step} was made with other weights of "
                f"{model_key}; --force continues with these."
            )
        _report_sets(config, prior)
        _report_edits(config, prior)
        prompts = guidance.embed_prompts(
            config, prior, prior.views_per_set, prior.image_tokens, view_words=not prior.edits
        )
        loaded.append((config, prior, prompts))
        prior.free_text_encoder()
    state.rectifier = rectifier
    if goes_on and checkpoint is not None and rectifier is not None:
        _take_poses(rectifier, checkpoint)
    if not goes_on:
        # Only now, for the priors have taken their share of the memory.
        if counts.step == 0:
            counts.most_gaussians = ranks.least(_most_gaussians(state.config, device), device)
        _plan([(config, prior) for config, prior, _ in loaded], ranks, counts, rectifier)
    first, *others = (_guiding(state, step, *each) for each in loaded)
    state.take(first)
    state.waiting = {each.config.guidance.model_key: each for each in others}


def _made_with(checkpoint: Checkpoint | None, model_key: str) -> dict[str, Any]:
    """Return the fingerprints of the priors that a checkpoint was made with, by their keys; `model_key` where it has none."""
    if checkpoint is None:
        return {}
    waiting = checkpoint.facts.get("waiting")
    others = waiting if isinstance(waiting, dict) else {}
    return {str(checkpoint.facts.get("model_key", model_key)): checkpoint.facts.get("prior"), **others}


def _guiding(
    state: Training, step: int, config: Config, prior: LatentPrior, prompts: PromptEmbeddings
) -> Guiding:
    """Make a prior ready to guide, in the way that was decided."""
    counts, mine = state.counts, state.ranks.share(config.guidance.C_batch_size, prior.views_per_set)
    prior.encode_singly = counts.encode_singly
    prior.encodes_with = config.encodes_with(step)
    at_once = whole_sets(counts.views_at_once or len(mine), prior.views_per_set)
    rectifier = state.rectifier if guidance.prior.rectifies(config) else None
    guidance.prior.compile_networks(
        config,
        prior,
        at_once,
        shares=lambda: batch_shares(config, prior, mine, at_once),
        needed=lambda: needed_bytes(config, prior, MemoryPlan(at_once, counts.encode_singly), rectifier),
    )
    guide = guidance.build(config, prior, prior.with_autoencoder(), rectifier)
    return Guiding(config, prior, prompts, guide)


def _take_poses(rectifier: PoseRectifier, checkpoint: Checkpoint) -> None:
    """Go on with a checkpoint's averages over the poses, or from even ones after a warning if it has none that fit."""
    kept = checkpoint.tensors.get(POSES)
    if kept is None or kept.shape != rectifier.marginal.shape:
        logger.warning(
            "The checkpoint of iteration %d has no averages over these poses: they begin evenly.",
            checkpoint.step,
        )
        return
    rectifier.marginal.copy_(kept)


def checkpoint_of(state: Training) -> Checkpoint:
    """Checkpoint of all that the rest of the run depends on."""
    facts: dict[str, Any] = {
        "config": state.config.model_dump(mode="json"),
        "prior": state.prior.fingerprint,
        "model_key": state.guided.guidance.model_key,
        "counts": vars(state.counts),
        "torch": torch.__version__,
    }
    if state.steering is not None:
        facts["guide"] = state.steering.fingerprint
    if state.original is not None:
        facts["original"] = state.original.fingerprint
    if state.waiting:
        facts["waiting"] = {key: each.prior.fingerprint for key, each in state.waiting.items()}
    tensors = snapshot(state.optimizer)
    if state.rectifier is not None:
        tensors[POSES] = state.rectifier.marginal.to(HOST, copy=True)
    return Checkpoint(state.counts.step, tensors, facts)


def _check_number_of_views(config: Config, ranks: Ranks) -> None:
    """Check that an iteration's views are whole sets of those that the prior sees together, and enough for all processes, and
    that a multi-view prior is one.

    Raises: ValueError, one sentence.
    """
    params, together = config.guidance, guidance.prior.class_of(config).views_per_set
    views = params.C_batch_size
    if together == 1 and params.model_key == params.multiview_model_key:
        raise ValueError(
            f"GuidanceParams.multiview_model_key is '{params.model_key}', but that prior sees each view alone: name one of several "
            "views, such as ashawkey/mvdream-sd2.1-diffusers."
        )
    if views % together:
        raise ValueError(
            f"GuidanceParams.C_batch_size is {views}, but the prior {config.guidance.model_key} sees {together} views together: "
            f"--C_batch_size {-(-views // together) * together}."
        )
    if views < ranks.count * together:
        what = "views" if together == 1 else f"sets of {together} views"
        raise ValueError(
            f"GuidanceParams.C_batch_size is {views}, but {ranks.count} processes need as many {what}: "
            f"--C_batch_size {ranks.count * together}."
        )


def _report_sets(config: Config, prior: LatentPrior) -> None:
    """Log what a prior of several views does without."""
    if prior.views_per_set == 1:
        return
    off = [
        name
        for name, on in (
            ("perpneg", config.guidance.perpneg),
            ("rectify_poses", config.guidance.rectify_poses),
            ("jitter_pose", config.camera.jitter_pose),
        )
        if on
    ]
    *before, last = off or [""]
    logger.warning(
        "The prior %s sees %d views together, evenly around the asset, and is told where they are: the prompt has no view words%s.",
        config.guidance.model_key,
        prior.views_per_set,
        f", and {', '.join(before)}{' and ' if before else ''}{last} {'do' if before else 'does'} nothing"
        if off
        else "",
    )


def _report_edits(config: Config, prior: LatentPrior) -> None:
    """Log what a prior that edits does without."""
    if prior.edits:
        logger.warning(
            "The prior %s edits the original, which shows each view: the prompt, an instruction, has no view words%s.",
            config.guidance.model_key,
            ", and perpneg does nothing" if config.guidance.perpneg else "",
        )


def _plan(
    priors: Sequence[tuple[Config, LatentPrior]],
    ranks: Ranks,
    counts: Counts,
    rectifier: PoseRectifier | None,
) -> None:
    """Decide how many of a process's views go through the networks together: as many as fit with each of the priors.

    On this machine's own processor all do unless `vram_O` asks for less: its memory serves other processes too, and a run's
    result must not depend on them.
    """
    config, prior = priors[0]
    if prior.device.type == HOST.type and not config.guidance.vram_O:
        return
    free = ranks.least(free_memory(prior.device), prior.device)
    plans = [
        plan_memory(
            config,
            prior,
            len(ranks.share(config.guidance.C_batch_size, prior.views_per_set)),
            free,
            rectifier if guidance.prior.rectifies(config) else None,
        )
        for config, prior in priors
    ]
    counts.views_at_once = min(plan.views_at_once for plan in plans)
    counts.encode_singly = any(plan.encode_singly for plan in plans)


def _most_gaussians(config: Config, device: torch.device) -> int:
    if config.optimization.max_num_gaussians is not None:
        return config.optimization.max_num_gaussians
    each = bytes_per_gaussian(config.model.sh_degree, config.guidance.C_batch_size)
    return int(SHARE_OF_MEMORY * free_memory(device)) // each


def _counts_of(checkpoint: Checkpoint) -> Counts:
    try:
        counts = Counts(**checkpoint.facts["counts"])
        if not all(value is None or isinstance(value, (int, float)) for value in vars(counts).values()):
            raise TypeError
        return counts
    except (KeyError, TypeError):
        raise ValueError(
            f"The checkpoint of iteration {checkpoint.step} does not say what was done so far: it is another program's."
        ) from None


def _refuse_other_settings(checkpoint: Checkpoint, config: Config) -> None:
    try:
        before = Config.model_validate(checkpoint.facts["config"])
    except (KeyError, ValueError):
        raise ValueError(
            f"The checkpoint of iteration {checkpoint.step} has settings of another version; --force uses the present ones."
        ) from None
    changed = configuration.changes(before, config)
    if changed:
        raise ValueError(
            f"The checkpoint of iteration {checkpoint.step} is of another run, for {', '.join(changed)}; "
            "--force continues all the same."
        )


def _fixed(config: Config, gaussians: GaussianModel, ranks: Ranks) -> Tensor | None:
    """Return what `fixed_by_mask` finds in the first process."""
    fixed = fixed_by_mask(config, gaussians)
    if fixed is not None:
        ranks.take_from_first([fixed])
    return fixed


def _edit_mask_of(checkpoint: Checkpoint) -> str | None:
    """Return the `edit_mask` that a checkpoint's run had."""
    before = checkpoint.facts.get("config")
    params = before.get("optimization") if isinstance(before, dict) else None
    return params.get("edit_mask") if isinstance(params, dict) else None


def _refuse_another(checkpoint: Checkpoint, fact: str, shown: Steering | Original | None, what: str) -> None:
    """Refuse a checkpoint whose pictures were of another file than those that are `shown`."""
    if shown is not None and checkpoint.facts.get(fact) != shown.fingerprint:
        raise ValueError(
            f"The checkpoint of iteration {checkpoint.step} was made with another {what}; --force continues with this one."
        )
