"""The command line: ``metarl train``, ``evaluate``, ``families``, ``learners``."""

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, make_dataclass
from io import StringIO
from typing import Any, TypeVar

import tyro

from metarl.config import RunConfig, TrackMode, TrainConfig
from metarl.errors import InputError, MetarlError
from metarl.evaluation import evaluate_learner, load_run
from metarl.experiments.catalogue import ShowOptions, list_families, show_family
from metarl.experiments.report import save_evaluation, table, where
from metarl.family import find_by_name
from metarl.learner import LEARNERS
from metarl.run_directory import RunDirectory
from metarl.tracking import make_tracker, offline_run, tracking_mode
from metarl.training import resume, train

USAGE = """\
usage: metarl COMMAND ...

  metarl train LEARNER FAMILY [options]   train a meta-policy       (--help after both names explains every option)
  metarl train --resume RUN               continue a run that was stopped
  metarl evaluate RUN [options]           adapt to held-out tasks and measure it
  metarl families                         list the task families
  metarl families show FAMILY [options]   describe one of them, and draw some of its tasks with --render FILE.png
  metarl learners                         list the learners
"""


Options = TypeVar("Options")


@dataclass(frozen=True)
class EvaluateOptions:
    """Adapt to held-out test tasks, and write evaluation.json and adaptation_curve.png into the run."""

    run: tyro.conf.Positional[str]
    """Directory of the run."""
    tasks: int = 40
    """Number of test tasks; a finite family may have fewer to give."""
    steps: int = 3
    """Adaptation steps."""
    episodes: int | None = None
    """Episodes of each task before each step and after the last; by default those of the training run."""
    seed: int = 0
    """Of environments and actions; the test tasks do not depend on it."""
    device: str | None = None
    """Torch device; by default the one the run was trained on."""
    track: TrackMode = "disabled"
    """Report to W&B as a run of type evaluate: auto, online, offline or disabled."""


@dataclass(frozen=True)
class ResumeOptions:
    """Continue a run from its checkpoint."""

    resume: str
    """Directory of the run."""
    iterations: int | None = None
    """New total number of iterations; by default what the run was started with."""
    device: str | None = None
    """Torch device to go on with; by default the one the run was started on."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if words else 2
    return guarded(lambda: find_by_name(COMMANDS, words[0], "command", "metarl --help")(words[1:]))


def run_published(experiment: TrainConfig) -> None:
    """Be the main program of a published experiment: its settings are the defaults of the options."""

    def start() -> None:
        config = parse_train(experiment.learner, experiment.family, sys.argv[1:], experiment)
        run_training(lambda: train(config))

    sys.exit(guarded(start))


def guarded(command: Callable[[], None]) -> int:
    """Run a command; turn a failure meant for a person into one line on standard error, and return the exit code."""
    warnings.formatwarning = lambda message, *_, **__: f"metarl: {message}\n"
    try:
        command()
    except MetarlError as error:
        print(f"metarl: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # what read our output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        print(f"metarl: {error.strerror or error}{place}; what was whole before is still there", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("metarl: interrupted", file=sys.stderr)
        return 130
    return 0


def parse(options: Callable[..., Options], command: str, words: Sequence[str]) -> Options:
    """Parse the options of a command into a dataclass.

    Raises:
        InputError: with the first sentence of what tyro has to say, which is a box of many lines.
    """
    said = StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(options, prog=command, args=words, config=(tyro.conf.OmitArgPrefixes,))
    except SystemExit as end:
        if end.code != 2:
            raise
        lines = [line.strip("│ ") for line in said.getvalue().splitlines()[1:]]
        rule = next((index for index, line in enumerate(lines) if not line.strip("─╰╯")), len(lines))
        raise InputError(f"{' '.join(lines[:rule])} ({command} --help explains the options)") from None


def parse_train(learner: str, family: str, words: Sequence[str], default: TrainConfig | None = None) -> TrainConfig:
    """Parse the options of a training run, every field of its two configurations being one.

    Args:
        learner: name of a registered learner.
        family: name of a registered family.
        words: the options.
        default: a published experiment, whose values the options override.
    """
    start = default or TrainConfig(learner, family)
    options = make_dataclass(
        "Options", [("run", RunConfig, start.run), ("settings", type(start.settings), start.settings)], frozen=True
    )
    options.__doc__ = f"Train {learner} on {family}."
    parsed: Any = parse(options, f"metarl train {learner} {family}", words)
    return TrainConfig(learner, family, parsed.run, parsed.settings)


def run_training(start: Callable[[], RunDirectory]) -> None:
    """Train, and say how it ended and what to do next."""
    directory = start()
    rows = directory.read_metrics()
    total = directory.read_config()["run"]["iterations"]
    if len(rows) < total:
        print(f"stopped after {len(rows)} of {total} iterations; metarl train --resume {directory.path} continues")
        return
    last = rows[-1]
    print(
        f"trained {total} iterations, {int(last['env_steps']):,} env steps; training tasks in the last one: "
        f"{float(last['return_before']):.2f} before, {float(last['return_after']):.2f} after adaptation"
    )
    print(where(directory, offline_run(directory.path)))
    print(f"next: metarl evaluate {directory.path}")


def _train(words: list[str]) -> None:
    if any(word.split("=")[0] == "--resume" for word in words):
        chosen = parse(ResumeOptions, "metarl train", words)
        run_training(lambda: resume(chosen.resume, chosen.iterations, chosen.device))
        return
    names = [word for word in words[:2] if not word.startswith("-")]
    if len(names) < 2:
        print(USAGE, end="")
        if "-h" in words or "--help" in words:
            return
        raise InputError("train needs a learner and a family, in this order, before any option")
    find_by_name(LEARNERS, names[0], "learner", "metarl learners")
    config = parse_train(names[0], names[1], words[2:])
    run_training(lambda: train(config))


def _evaluate(words: list[str]) -> None:
    options = parse(EvaluateOptions, "metarl evaluate", words)
    directory = RunDirectory(options.run)
    tracking_mode(options.track)
    config, learner, iteration = load_run(options.run, options.device)
    curve = evaluate_learner(config, learner, options.tasks, options.steps, options.episodes, options.seed)
    save_evaluation(directory, config, curve, iteration, options.seed)
    content = directory.read_config()
    tracker = make_tracker(
        options.track,
        directory.path,
        content,
        config.group,
        "evaluate",
        f"{content['tracking_id']}-eval",
    )
    tracker.log_curve(curve, directory.curve)
    tracker.finish()
    print(f"{config.learner} on {config.family} ({config.preset}), trained for {iteration} iterations")
    few = "" if len(curve.returns) == options.tasks else ", all that the family has"
    print(f"{len(curve.returns)} held-out test tasks{few}; {curve.episodes} episodes per step, actions sampled\n")
    print(table(curve))
    print(f"\n{where(directory, offline_run(directory.path))}")


def _families(words: list[str]) -> None:
    if words and words[0] == "show":
        print(show_family(parse(ShowOptions, "metarl families show", words[1:])))
        return
    _refuse(words, "families")
    print(list_families())


def _learners(words: list[str]) -> None:
    _refuse(words, "learners")
    for name, learner in LEARNERS.items():
        print(f"{name}\n  {_summary(learner)}\n  settings: metarl train {name} FAMILY --help")


def _summary(thing: type) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0]


def _refuse(words: list[str], command: str) -> None:
    if words:
        raise InputError(f"metarl {command} takes nothing more, not {' '.join(words)}")


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": _train,
    "evaluate": _evaluate,
    "families": _families,
    "learners": _learners,
}

if __name__ == "__main__":
    sys.exit(main())
