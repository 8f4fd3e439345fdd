"""The command line: ``metarl train``, ``evaluate``, ``families``, ``learners``."""

import os
import shlex
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
from metarl.experiments.commands.collect import CollectOptions, collect
from metarl.experiments.commands.compare import CompareOptions, compare
from metarl.experiments.commands.evaluation_report import files_of, save_evaluation, table, training_of, where
from metarl.experiments.commands.families import ShowOptions, list_families, show_family
from metarl.experiments.commands.render import RenderOptions, render
from metarl.family import Source
from metarl.learner import LEARNERS
from metarl.registry import find_by_name
from metarl.run_directory import CheckpointChoice, RunDirectory
from metarl.tracking.tracking import track_evaluation, tracking_mode
from metarl.training import resume, train

USAGE = """\
usage: metarl COMMAND ...

  metarl train LEARNER FAMILY [options]   train a meta-policy       (--help after both names explains every option)
  metarl train --resume RUN               continue a run that was stopped
  metarl evaluate RUN [options]           adapt to held-out tasks and measure it
  metarl collect RUN --out DATA [options] record episodes of a run, which others can be trained on with --data DATA
  metarl compare RUN RUN ... [options]    measure several runs alike, and write a report with pictures and statistics
  metarl render RUN [options]             record an episode before and after adaptation as a video
  metarl families                         list the task families
  metarl families show FAMILY [options]   describe one of them, and draw some of its tasks with --render FILE.png
  metarl learners                         list the learners
"""


Options = TypeVar("Options")
TASKS_OF: dict[str, str] = {
    "train": "training tasks",
    "validation": "validation tasks",
    "test": "test tasks",
    "ood": "tasks outside the distribution",
}


@dataclass(frozen=True)
class EvaluateOptions:
    """Adapt to held-out tasks, and write evaluation.json and adaptation_curve.png into the run.

    Of other tasks than the test tasks they are evaluation-PART.json and adaptation_curve-PART.png.
    """

    run: tyro.conf.Positional[str]
    """Directory of the run."""
    tasks: int | Source = 40
    """Number of test tasks, of which a finite family may have fewer to give; or 40 of others: train, validation, or
    ood, outside the distribution."""
    steps: int | None = None
    """Adaptation steps; by default 3, or the rest of the trial of a learner that remembers trials."""
    episodes: int | None = None
    """Episodes of each task before each step and after the last; by default those of the training run."""
    deterministic: bool = False
    """Measure the policy's mode, in further episodes, instead of sampled actions."""
    seed: int = 0
    """Of environments and actions; the tasks do not depend on it."""
    device: str | None = None
    """Torch device; by default the one the run was trained on."""
    checkpoint: CheckpointChoice = "latest"
    """Which checkpoint: the latest, or the best on validation tasks."""
    track: TrackMode = "disabled"
    """Report as a run of type evaluate, to W&B (auto, online, offline) or to tensorboard."""

    @property
    def chosen(self) -> tuple[int, Source]:
        """How many tasks, and where they come from."""
        return (self.tasks, "test") if isinstance(self.tasks, int) else (40, self.tasks)


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
    print(where(directory))
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
    LEARNERS.find(names[0])
    config = parse_train(names[0], names[1], words[2:])
    run_training(lambda: train(config))


def _evaluate(words: list[str]) -> None:
    options = parse(EvaluateOptions, "metarl evaluate", words)
    directory = RunDirectory(options.run)
    tracking_mode(options.track)
    config, learner, iteration = load_run(options.run, options.device, options.checkpoint)
    count, part = options.chosen
    curve = evaluate_learner(
        config, learner, count, options.steps, options.episodes, options.seed, part, options.deterministic
    )
    save_evaluation(directory, config, curve, iteration, options.seed)
    settings = {"iteration": iteration, "seed": options.seed}
    tracker = track_evaluation(config, directory, options.track, options.checkpoint, curve, settings)
    tracker.log_curve(curve, files_of(directory, curve)[0])
    for video in directory.videos():
        tracker.log_video(video)
    tracker.finish()
    print(training_of(directory, config, iteration))
    few = "" if len(curve.returns) == count else ", all that there are"
    acting = "the policy's mode" if curve.deterministic else "actions sampled"
    print(f"{len(curve.returns)} {TASKS_OF[curve.part]}{few}; {curve.episodes} episodes per step, {acting}\n")
    print(table(curve, None if part == "ood" else config.find_reference()))
    print(f"\n{where(directory, curve)}")


def _compare(words: list[str]) -> None:
    print(compare(parse(CompareOptions, "metarl compare", words), shlex.join(["metarl", "compare", *words])))


def _render(words: list[str]) -> None:
    print(render(parse(RenderOptions, "metarl render", words)))


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
    "collect": lambda words: print(collect(parse(CollectOptions, "metarl collect", words))),
    "compare": _compare,
    "render": _render,
    "families": _families,
    "learners": _learners,
}

if __name__ == "__main__":
    sys.exit(main())
