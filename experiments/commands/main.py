"""The command line: which commands there are, and the dispatch of ``metarl COMMAND ...`` to one of them.

A command is a module of this folder with a function ``run(words)``. It is imported when it is called, so that the usage
is printed at once, and a command imports no more than it needs.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from metarl.experiments.commands.parsing import guarded
from metarl.registry import find_by_name

# The lines of the usage: a command, its arguments, and what it does with them. The first word is the module's name.
LINES = (
    ("train", "LEARNER FAMILY [options]", "train a meta-policy       (--help after both names explains every option)"),
    ("train", "--published NAME [options]", "repeat a published experiment; without a name, list them"),
    ("train", "--resume RUN", "continue a run that was stopped"),
    ("evaluate", "RUN [options]", "adapt to held-out tasks and measure it"),
    ("check", "RUN [options]", "verify every file of a run, and that its evaluations reproduce"),
    ("collect", "RUN --out DATA [options]", "record a run's episodes, which others can be trained on with --data DATA"),
    ("compare", "RUN RUN ... [options]", "measure several runs alike, and write a report with pictures and statistics"),
    ("render", "RUN [options]", "record an episode before and after adaptation as a video"),
    ("families", "", "list the task families"),
    ("families", "show FAMILY [options]", "describe one of them, and draw some of its tasks with --render FILE.png"),
    ("learners", "", "list the learners"),
)
COMMANDS = {command: f"metarl.experiments.commands.{command}" for command, _, _ in LINES}


def usage() -> str:
    """Return what ``metarl --help`` prints."""
    calls = [f"  metarl {command} {arguments}".rstrip() for command, arguments, _ in LINES]
    width = max(map(len, calls))
    lines = [f"{call:<{width}}   {meaning}" for call, (_, _, meaning) in zip(calls, LINES, strict=True)]
    return "\n".join(["usage: metarl COMMAND ...", "", *lines])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    return guarded(lambda: _call(words[0], words[1:]))


def _call(command: str, words: list[str]) -> None:
    module = find_by_name(COMMANDS, command, "command", "metarl --help")
    # The installed script's path lacks the current folder, where a user's ``module:name`` is looked for. It comes last,
    # so that no file in it takes the place of an installed module.
    if (folder := os.getcwd()) not in sys.path:
        sys.path.append(folder)
    import_module(module).run(words)


if __name__ == "__main__":
    sys.exit(main())
