"""``metarl train``: train a learner on a family, reproduce a published experiment, or continue a run."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from typing import Annotated, Any

from metarl.devices.distributed import restarted
from metarl.devices.processes import ONE_PROCESS, Processes
from metarl.errors import InputError, RunStopped
from metarl.experiments.commands.launch import run_on_devices
from metarl.experiments.commands.main import usage
from metarl.experiments.commands.parsing import parse
from metarl.experiments.commands.run_files import list_files
from metarl.experiments.commands.seeds import several_seeds
from metarl.experiments.published import find_published, list_published
from metarl.families.family import FAMILIES, TaskFamily
from metarl.families.family_settings import explanations, not_settable, settable
from metarl.learning.learner import LEARNERS
from metarl.run.config import RunConfig, TrainConfig
from metarl.run.directory import RunDirectory
from metarl.run.settings_file import config_from_file
from metarl.training.loop_tools import StopRequest
from metarl.training.requeue import train_or_resume
from metarl.training.train import resume, train

PUBLISHED = "--published"
CONFIG = "--config"
RESUME_IF_THERE = "--resume-if-there"
# A short name, which no field can have, as ``from`` is a keyword of Python.
FROM, START_FROM = "--from", "--start-from"
HELP_OF_OTHERS = (
    f"With {RESUME_IF_THERE}, a run that already exists in --out is resumed, or left as it is if it is finished; use "
    "this in jobs that may be requeued.\n\n"
    "With --devices cuda:0,cuda:1, --devices cpu*4 or --devices all, one process on each device trains on its share "
    "of the tasks; with --max-restarts N, they resume from the last checkpoint, up to N times, if one is killed.\n\n"
    "With --seeds 1,2,3, one run is trained for each seed, one on each of the --devices at a time."
)


@dataclass(frozen=True)
class ResumeOptions:
    """Continue a run from its checkpoint."""

    resume: str
    """Directory of the run."""
    iterations: int | None = None
    """New total number of iterations; by default the number the run was started with."""
    device: str | None = None
    """Torch device to continue on; by default the one the run was started on. --devices, as for a new run,
    continues on any number of processes."""
    redraw: tuple[int, ...] = ()
    """Iterations whose tasks and episodes are redrawn, if they make an environment or an update fail on every
    resume."""


def run(words: Sequence[str]) -> None:
    """Train as the command line says, on the devices that it names.

    Raises:
        InputError: for unknown names, options that make no sense, and a directory that cannot be written.
        RunError: when sampling or an update fails, or a process is killed.
    """
    if _asks_for_help(words):
        run_on(words, ONE_PROCESS, StopRequest())
    elif not several_seeds(words, _trainable):
        run_on_devices("train", words, run_on)


def run_on(words: Sequence[str], processes: Processes, stop: StopRequest) -> None:
    """Train as the command line says, as one of several processes.

    Raises:
        InputError: as ``run``.
        RunError: as ``run``.
    """
    options = [word.split("=")[0] for word in words]
    if "--resume" in options and PUBLISHED not in options:
        chosen = parse(ResumeOptions, "metarl train", words, "metarl train --resume RUN")
        given = chosen.resume, chosen.iterations, chosen.device, chosen.redraw
        report(resume(*given, stop, processes), processes, stop)
        return
    if PUBLISHED in options and _names_none(words):
        print("\n".join(f"{each.name}\n  {each.summary}" for each in list_published()))
        return
    if not {PUBLISHED, CONFIG} & set(options) and len(_names(words)) < 2:
        print(usage())
        if _asks_for_help(words):
            return
    begin = train_or_resume if RESUME_IF_THERE in options or restarted() else train
    report(begin(_trainable(words), stop, processes), processes, stop)


def _trainable(words: Sequence[str]) -> TrainConfig:
    """Return the training run that the words name, if it has what its learner learns from.

    Raises:
        InputError: as ``config_of``, and if recorded episodes are missing.
    """
    config = config_of(words)
    if config.learner_class.needs_recorded and config.run.data is None:
        raise InputError(
            f"{config.learner} learns from the recorded episodes of another learner: record them with metarl collect, "
            "and pass their folder as --data"
        )
    return config


def config_of(words: Sequence[str]) -> TrainConfig:
    """Return the training run that the words name: learner and family, a published experiment or a file, and options.

    Raises:
        InputError: for unknown names, and options that make no sense.
    """
    options = [word.split("=")[0] for word in words]
    if PUBLISHED in options:
        return _published(words)
    if CONFIG in options:
        return _from_file(words)
    if len(names := _names(words)) < 2:
        raise InputError(
            "name a learner and a family, in this order, before any option; metarl learners and metarl families list "
            "them"
        )
    learner, family = names
    LEARNERS.find(learner)  # the first word that is wrong is the one to name
    return parse_train(TrainConfig(learner, family), f"metarl train {learner} {family}", words[2:])


def _names(words: Sequence[str]) -> list[str]:
    return [word for word in words[:2] if not word.startswith("-")]


def _names_none(words: Sequence[str]) -> bool:
    """Return whether ``--published`` comes first and alone, to list the experiments."""
    return words[0] == PUBLISHED and (len(words) == 1 or not words[1] or _asks_for_help(words[1:2]))


def _published(words: Sequence[str]) -> TrainConfig:
    """Return a published experiment with the options after its name.

    Raises:
        InputError: unless ``--published NAME`` comes first, and for an unknown name.
    """
    option, equals, name = words[0].partition("=")
    if option != PUBLISHED:
        raise InputError(
            f"{PUBLISHED} names learner and family as well: put it first, as in metarl train {PUBLISHED} NAME [options]"
        )
    name, rest = (name, words[1:]) if equals else (" ".join(words[1:2]), words[2:])
    if not name or name.startswith("-"):
        raise InputError(
            f"{PUBLISHED} needs the name of an experiment before any option; metarl train {PUBLISHED} lists them"
        )
    found = find_published(name)
    return parse_train(found.config, f"metarl train {PUBLISHED} {name}", rest, found.description)


def _from_file(words: Sequence[str]) -> TrainConfig:
    """Return the training run that a file describes with the options after it.

    Raises:
        InputError: unless ``--config FILE`` comes first, and for a file that does not describe a training run.
    """
    option, equals, path = words[0].partition("=")
    path, rest = (path, words[1:]) if equals else (" ".join(words[1:2]), words[2:])
    if option != CONFIG or not path or path.startswith("-"):
        raise InputError(
            f"{CONFIG} FILE names learner and family as well: put it first, as in metarl train {CONFIG} FILE [options]"
        )
    return parse_train(config_from_file(path), f"metarl train {CONFIG} {path}", rest)


def parse_train(defaults: TrainConfig, command: str, words: Sequence[str], description: str = "") -> TrainConfig:
    """Parse the options of a training run: all fields of its two configurations, and of the family.

    Args:
        defaults: defaults of the options, from the learner or a published experiment.
        command: the command as called, for help and messages.
        words: the options; ``--resume-if-there`` is not a setting of a run, and ignored here.
        description: description for the help; by default learner and family.

    Raises:
        InputError: for unknown or invalid options.
    """
    family = FAMILIES.find(defaults.family)
    _refuse_unsettable(family, words)
    own = family_options(family)
    fields = [
        ("run", RunConfig, defaults.run),
        ("settings", type(defaults.settings), defaults.settings),
        ("family", own, own(**defaults.family_overrides)),
    ]
    options = make_dataclass("Options", fields, frozen=True)
    options.__doc__ = f"{description or f'Train {defaults.learner} on {defaults.family}.'}\n\n{HELP_OF_OTHERS}"
    given = [START_FROM + word.removeprefix(FROM) if word.split("=")[0] == FROM else word for word in words]
    parsed: Any = parse(options, command, [word for word in given if word != RESUME_IF_THERE])
    overrides = {name: value for name, value in vars(parsed.family).items() if value is not None}
    return TrainConfig(defaults.learner, defaults.family, parsed.run, parsed.settings, overrides)


def family_options(family: type[TaskFamily]) -> type[Any]:
    """Return a dataclass of the fields of a family that a run can set, as the options ``--family.FIELD``.

    Each is None by default, which means the preset's value.
    """
    import tyro  # here, so that the usage is printed without it

    explained = explanations(family)
    fields: list[Any] = []
    for name, kind in settable(family).items():
        text = f"{explained.get(name, name)} By default the preset's value."
        option = tyro.conf.arg(name=_option(name).removeprefix("--"), help=text)
        fields.append((name, Annotated[kind | None, option], field(default=None)))
    options = make_dataclass("FamilyOptions", fields, frozen=True)
    left_out = [f"{name} ({reason})" for name, reason in not_settable(family).items()]
    options.__doc__ = f"Fields of the family {family.name}; not among them: {', '.join(left_out)}."
    return options


def _refuse_unsettable(family: type[TaskFamily], words: Sequence[str]) -> None:
    """Raise ``InputError`` with the reason if an option names a field that a run cannot set."""
    given = {word.split("=")[0].replace("_", "-") for word in words}
    for name, reason in not_settable(family).items():
        if _option(name) in given:
            raise InputError(f"there is no option {_option(name)}: {reason}")


def _option(field_name: str) -> str:
    return f"--family.{field_name.replace('_', '-')}"


def report(directory: RunDirectory, processes: Processes, stop: StopRequest) -> None:
    """Print, on the first process, how a training run ended and what to do next.

    Raises:
        RunStopped: if a signal stopped the run.
    """
    rows, total, finished = processes.from_first(lambda: _ending(directory))
    if finished != total:
        raise RunStopped(
            f"stopped after {rows} of {total} iterations; continue with metarl train --resume {directory.path}",
            stop.signal or signal.SIGTERM,
        )
    if processes.rank == 0:
        _print_end(directory, total)


def _ending(directory: RunDirectory) -> tuple[int, int, int | None]:
    """Return how many iterations a run has, is to have, and was finished with."""
    total = int(directory.read_config()["run"]["iterations"])
    return len(directory.read_metrics()), total, directory.finished_iterations()


def _print_end(directory: RunDirectory, total: int) -> None:
    last = directory.read_metrics()[-1]
    print(
        f"trained {total} iterations, {int(last['env_steps']):,} env steps; training tasks in the last one: "
        f"{float(last['return_before']):.2f} before, {float(last['return_after']):.2f} after adaptation"
    )
    print(list_files(directory))
    print(f"next: metarl evaluate {directory.path}")


def _asks_for_help(words: Sequence[str]) -> bool:
    return "-h" in words or "--help" in words
