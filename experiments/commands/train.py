"""``metarl train``: train a learner on a family, reproduce a published experiment, or continue a run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, make_dataclass
from typing import Annotated, Any

from metarl.config import RunConfig, TrainConfig
from metarl.errors import InputError, RunStopped
from metarl.experiments.commands.main import usage
from metarl.experiments.commands.parsing import parse
from metarl.experiments.commands.run_files import list_files
from metarl.experiments.published import find_published, list_published
from metarl.family import FAMILIES, TaskFamily
from metarl.family_settings import explanations, not_settable, settable
from metarl.learner import LEARNERS
from metarl.loop_tools import StopRequest
from metarl.requeue import train_or_resume
from metarl.run_directory import RunDirectory
from metarl.training import resume, train

PUBLISHED = "--published"
RESUME_IF_THERE = "--resume-if-there"
HELP_OF_RESUME_IF_THERE = (
    f"With {RESUME_IF_THERE}, a run that is in --out already is resumed, or left as it is where it is finished: the "
    "command of a job that may be queued again."
)


@dataclass(frozen=True)
class ResumeOptions:
    """Continue a run from its checkpoint."""

    resume: str
    """Directory of the run."""
    iterations: int | None = None
    """New total number of iterations; by default the number the run was started with."""
    device: str | None = None
    """Torch device to continue on; by default the one the run was started on."""
    redraw: tuple[int, ...] = ()
    """Iterations whose tasks and episodes are redrawn, if they make an environment or an update fail on every
    resume."""


def run(words: Sequence[str]) -> None:
    """Train the learner and family in the arguments.

    Raises:
        InputError: for unknown names, invalid options, or a directory that cannot be written to.
        RunError: if sampling or an update fails.
    """
    options = [word.split("=")[0] for word in words]
    if PUBLISHED in options:
        _train_published(words)
        return
    if "--resume" in options:
        chosen = parse(ResumeOptions, "metarl train", words)
        given = chosen.resume, chosen.iterations, chosen.device, chosen.redraw
        train_and_report(lambda stop: resume(*given, stop=stop))
        return
    names = [word for word in words[:2] if not word.startswith("-")]
    if len(names) == 2:
        learner, family = names
        LEARNERS.find(learner)  # so that the error names the first wrong word
        config = parse_train(TrainConfig(learner, family), f"metarl train {learner} {family}", words[2:])
        _start(config, options)
        return
    print(usage())
    if not _asks_for_help(words):
        raise InputError("train needs a learner and a family, in this order, before any option")


def _train_published(words: Sequence[str]) -> None:
    """Train a published experiment with the options after its name, or list the experiments if none is named.

    Raises:
        InputError: unless ``--published NAME`` comes first, and for an unknown name.
    """
    option, equals, name = words[0].partition("=")
    if option != PUBLISHED:
        raise InputError(
            f"{PUBLISHED} names learner and family as well: put it first, as in metarl train {PUBLISHED} NAME [options]"
        )
    name, rest = (name, words[1:]) if equals else (" ".join(words[1:2]), words[2:])
    if not equals and (not name or _asks_for_help(words[1:2])):
        print("\n".join(f"{each.name}\n  {each.summary}" for each in list_published()))
        return
    if not name or name.startswith("-"):
        raise InputError(
            f"{PUBLISHED} needs the name of an experiment before any option; metarl train {PUBLISHED} lists them"
        )
    found = find_published(name)
    config = parse_train(found.config, f"metarl train {PUBLISHED} {name}", rest, found.description)
    _start(config, rest)


def _start(config: TrainConfig, words: Sequence[str]) -> None:
    """Train from the start, or, with the option for it, resume the existing run."""
    begin = train_or_resume if RESUME_IF_THERE in words else train
    train_and_report(lambda stop: begin(config, stop))


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
    options.__doc__ = f"{description or f'Train {defaults.learner} on {defaults.family}.'}\n\n{HELP_OF_RESUME_IF_THERE}"
    parsed: Any = parse(options, command, [word for word in words if word != RESUME_IF_THERE])
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


def train_and_report(start: Callable[[StopRequest], RunDirectory]) -> None:
    """Train, and print the outcome and the next command.

    Raises:
        RunStopped: if a signal stopped the run.
    """
    stop = StopRequest()
    directory = start(stop)
    rows = directory.read_metrics()
    total = directory.read_config()["run"]["iterations"]
    if stop.signal is not None and directory.finished_iterations() != total:
        raise RunStopped(
            f"stopped after {len(rows)} of {total} iterations; metarl train --resume {directory.path} continues",
            stop.signal,
        )
    last = rows[-1]
    print(
        f"trained {total} iterations, {int(last['env_steps']):,} env steps; training tasks in the last one: "
        f"{float(last['return_before']):.2f} before, {float(last['return_after']):.2f} after adaptation"
    )
    print(list_files(directory))
    print(f"next: metarl evaluate {directory.path}")


def _asks_for_help(words: Sequence[str]) -> bool:
    return "-h" in words or "--help" in words
