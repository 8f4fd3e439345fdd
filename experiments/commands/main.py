"""The command line: dispatches ``metarl COMMAND ...`` to one of the commands.

A command is a module in this folder with a function ``run(words)``. It is imported when it is called, so the usage is
printed quickly, and a command imports no more than it needs.
"""

import os
import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from importlib.metadata import version

from metarl.errors import MetarlError
from metarl.experiments.commands.parsing import guarded, silence
from metarl.listing import listed_families, listed_learners
from metarl.registry import find_by_name

# The lines of the usage: command, arguments and description. The first word is the module's name.
LINES = (
    ("train", "LEARNER FAMILY [options]", "train a meta-policy       (--help after both names explains every option)"),
    ("train", "--published NAME [options]", "reproduce a published experiment, or list them if no name is given"),
    ("reproduce", "[FOLDER]", "list the published experiments, what each costs, and how far their runs are"),
    ("train", "--config FILE [options]", "train what a YAML or JSON file describes, such as a run's config.json"),
    ("train", "--resume RUN", "continue a run that was stopped"),
    ("runs", "[FOLDER]", "list the runs in a folder (runs by default): state, progress, returns, size"),
    ("evaluate", "RUN [options]", "adapt to held-out tasks and measure the returns"),
    ("hub", "", "list the trained runs that come with metarl: metarl evaluate hub:NAME"),
    ("push", "RUN OWNER/NAME [options]", "publish a run on the Hugging Face Hub, for others to use as hub:OWNER/NAME"),
    ("check", "RUN [options]", "verify every file of a run, and reproduce its evaluations"),
    ("collect", "RUN --out DATA [options]", "record a run's episodes, for training with --data DATA"),
    ("compare", "RUN RUN ... [options]", "evaluate several runs and write a report with figures and statistics"),
    ("continual", "LEARNER FAMILY [options]", "meet tasks one after the other; measure forgetting, transfer, recovery"),
    ("render", "RUN [options]", "record an episode before and after adaptation as a video"),
    ("serve", "RUN [options]", "serve a trained learner that acts and adapts over HTTP"),
    ("families", "", "list the task families"),
    ("families", "show FAMILY [options]", "describe one of them; --render FILE.png renders some of its tasks"),
    ("learners", "", "list the learners"),
    ("completion", "SHELL", "print a script that completes all of this in bash, zsh or fish"),
)
HELP = ("-h", "--help")
# Commands without options; their arguments are in the usage.
PLAIN = ("hub", "families", "learners", "completion")
# Before or after the name of any command: no progress bar, and nothing printed but errors.
QUIET = "--quiet"
# The name of something of the user's own: module:name.
OWN = re.compile(r"(?!hub:)[A-Za-z_][\w.]*:[\w-]+")
COMMANDS = {command: f"metarl.experiments.commands.{command}" for command, _, _ in LINES}


def usage() -> str:
    """Return what ``metarl --help`` prints."""
    calls = [f"  metarl {command} {arguments}".rstrip() for command, arguments, _ in LINES]
    width = max(map(len, calls))
    lines = [f"{call:<{width}}   {meaning}" for call, (_, _, meaning) in zip(calls, LINES, strict=True)]
    return "\n".join(["usage: metarl COMMAND ...", "", *lines])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    words = [word for word in given if word != QUIET]
    if not words or words[0] in HELP or (words[0] in PLAIN and words[1:2] and words[1] in HELP):
        return guarded(lambda: print(usage()))
    if words[0] == "--version":
        print(f"metarl {version('metarl-gym')}")
        return 0
    with silence() if QUIET in given else nullcontext():
        return guarded(lambda: _call(words[0], words[1:]))


def _call(command: str, words: list[str]) -> None:
    module = find_by_name(COMMANDS, command, "command", "metarl --help")
    if command in ("train", "continual"):
        _check_names(words)
    # The installed script's path lacks the current folder, where a user's ``module:name`` may be. It comes last, so
    # that no file in it can shadow an installed module.
    if (folder := os.getcwd()) not in sys.path:
        sys.path.append(folder)
    try:
        import_module(module).run(words)
    except Exception as error:
        own = [word for word in words if OWN.fullmatch(word)]
        if own and not isinstance(error, MetarlError | OSError):
            error.add_note(f"metarl.check_family({own[-1]!r}) or metarl.check_learner says what is wrong with your own")
        raise


def _check_names(words: Sequence[str]) -> None:
    """Raise ``InputError`` for a misspelt learner or family, before the seconds that importing torch takes."""
    registries = (("learner", "metarl learners", listed_learners), ("task family", "metarl families", listed_families))
    for word, (kind, listing, listed) in zip(words, registries, strict=False):
        if word.startswith("-"):
            return
        if ":" not in word:
            find_by_name(listed(), word, kind, listing)


if __name__ == "__main__":
    sys.exit(main())
