"""Text to 3D: python train.py --opt config/x.yaml --guidance_type sctd

Reads the configuration, starts from a few thousand Gaussians, renders batches of views, asks the guidance how they
should look, and ends in an asset, pictures, videos and TensorBoard logs under outputs/<workspace>/<run>/.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence

from config import Config, ConfigError, load
from utils.torch_waits import shorten


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
    # Before torch is imported, so that a mistake is reported at once.
    config_of_this_run = _load_or_exit(sys.argv[1:])
    # Torch's OpenMP reads its environment when it is loaded.
    shorten()

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from guidance.prior import PriorError
from scene.gaussian_model import GaussianModel
from toybox.lab.verdict import verdict_on, warn_of_unknown_words
from training.begin import begin, run_folder_of
from training.iterations import iterations, logs, progress
from training.keeper import Keeper
from training.recorder import Recorder
from training.summary import cost_of, logged_numbers, summary, warn_if_invisible
from utils.device import resolve_device
from utils.interruption import Interrupted, Interruption
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


def train(
    config: Config,
    outputs: Path = OUTPUTS,
    on_step: Callable[[int], None] = lambda step: None,
    ranks: Ranks = ALONE,
) -> Result:
    """Run a configuration to its files, calling `on_step` after each iteration; of several processes, the first one's part.

    Raises PriorError, ValueError, FloatingPointError, MemoryError, OSError and RanksDiffer, one sentence each, and, in its
    loop, Interrupted after SIGTERM or SIGINT, when the last iteration is in a checkpoint.
    """
    with run_folder_of(config, outputs) as run:
        warn_of_unknown_words(config)
        state = begin(config, ranks)
        counts, last = state.counts, config.optimization.iterations
        recorder = Recorder(state.config, run, lambda z: state.prior.decode(z), counts.step)
        keeper = Keeper(config, run, before=recorder.drain)
        with recorder, Interruption() as interruption, live_view(config) as view:
            if counts.step == 0:
                recorder.start(state.gaussians, state.skeleton)
            with keeper.explaining(state):
                for iteration in progress(state, interruption):
                    step = counts.step
                    recorder.picture(step, iteration.seen, iteration.guided)
                    if logs(step, last):
                        recorder.scalars(step, logged_numbers(state, iteration))
                    recorder.after_step(step, state.gaussians)
                    if keeper.due(step):
                        keeper.keep(state)
                    on_step(step)
                    if view is not None:
                        # Time that a run is paused is not time that it takes.
                        counts.seconds -= view.after_step(
                            step, state.gaussians, iteration.numbers, interruption
                        )
            if interruption.signal is not None and counts.step < last:
                raise Interrupted(interruption.signal, f"stopped. {keeper.last_words(state)}")
            recorder.finish(state.gaussians, summary(state))
            warn_if_invisible(state.gaussians)
        cost = cost_of(state)
        recorder.page(cost)
        cost.write(run.result)
        recorder.tidy()
    return Result(state.gaussians, run, cost)


def assist(config: Config, ranks: Ranks) -> None:
    """Do the part of the processes that are not the first one: their share of the views. Raises what `train` does."""
    with Interruption() as interruption:
        state = begin(config, ranks)
        for _ in iterations(state, interruption):
            pass
        if interruption.signal is not None and state.counts.step < config.optimization.iterations:
            raise Interrupted(interruption.signal, "stopped.")


def main(config: Config) -> int:
    """Train as the command line has it, and print where the results are; returns the exit status."""
    ranks = launched()
    try:
        with meeting(ranks, resolve_device(config.device, ranks.local)):
            if not ranks.first:
                # The first one prints what there is to print.
                logging.disable(logging.WARNING)
                assist(config, ranks)
                return 0
            result = train(config, ranks=ranks)
        verdict = verdict_on(result.gaussians, config)
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
