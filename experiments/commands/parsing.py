"""Common code of commands and scripts: parsing options into a dataclass, and printing errors in one line."""

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from difflib import get_close_matches
from io import StringIO
from itertools import dropwhile, takewhile
from typing import TypeVar

from metarl.errors import InputError, MetarlError

Options = TypeVar("Options")
# What tyro says about a value that does not fit, with the option and the value; and its forms of values, in words.
WRONG_VALUE = re.compile(r"Error parsing (\S+): .*(?:base 10: |float: |arguments: \[|from \[)(.*?)\]?\.?")
FORMS = {
    "[INT [INT ...]]": "integers, separated by spaces",
    "[FLOAT [FLOAT ...]]": "numbers, separated by spaces",
    "{latest,best}|INT": "latest, best or the number of an iteration",
    "INT": "an integer",
    "FLOAT": "a number",
    "|{": " or one of {",
}


def guarded(command: Callable[[], None]) -> int:
    """Run a command, print user-facing errors in one line on standard error, and return the exit code."""
    warnings.formatwarning = lambda message, *_, **__: f"metarl: {message}\n"
    try:
        command()
    except MetarlError as error:
        print(f"metarl: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output, such as head, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        print(
            f"metarl: {error.strerror or error}{place}; files that were complete before are unaffected", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        print("metarl: interrupted", file=sys.stderr)
        return 130
    return 0


@contextmanager
def silence() -> Iterator[None]:
    """Print nothing but errors, here and in the processes that are started meanwhile."""
    sys.stdout.flush()
    kept, before = os.dup(1), os.environ.get("METARL_QUIET")
    os.environ["METARL_QUIET"] = before or "1"
    with open(os.devnull, "w") as nothing, redirect_stdout(nothing):
        os.dup2(nothing.fileno(), 1)
        try:
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)
            if before is None:
                del os.environ["METARL_QUIET"]


def parse(options: Callable[..., Options], command: str, words: Sequence[str], help_of: str | None = None) -> Options:
    """Parse the options of a command into a dataclass.

    Args:
        options: the dataclass; each field is an option, and the sentence under it its help.
        command: the command as called, for help and messages.
        words: the given options.
        help_of: what --help is added to for the help; by default the command.

    Raises:
        InputError: with what tyro's multi-line message says.
    """
    import tyro  # here, so that the usage is printed without it

    message = StringIO()
    try:
        with redirect_stderr(message):
            return tyro.cli(
                options, prog=command, args=words, config=(tyro.conf.OmitArgPrefixes, tyro.conf.DisallowNone)
            )
    except SystemExit as end:
        if end.code != 2:
            raise
        # A title, a sentence and more, between horizontal rules, in a box where the terminal's encoding has one.
        lines = list(dropwhile(_is_rule, (line.strip("│ ") for line in message.getvalue().splitlines()[1:])))
        raise InputError(f"{_in_one_line(lines)} ({help_of or command} --help explains the options)") from None


def _in_one_line(lines: Sequence[str]) -> str:
    """Return in one line what tyro says in several: a sentence, and after a rule the options that it is about."""
    sentence = list(takewhile(lambda line: not _is_rule(line), lines))
    said = " ".join(sentence).replace(". Expected 1 values.", "")
    options = [line for line in lines if line.startswith("--") and not _is_rule(line)]
    if missing := re.match("Missing from (.*?):", said):
        names = [line for line in sentence[1:] if line.startswith("--") or line.isupper()]
        return f"{missing[1]} needs {' and '.join(names)}"
    if options and (wrong := WRONG_VALUE.fullmatch(said)):
        form = options[0].partition(" ")[2]
        for short, words in FORMS.items():
            form = form.replace(short, words)
        return f"{wrong[1]} takes {form}, not {wrong[2]}"
    # Where there is no such option, those with similar names.
    if options and (unknown := re.match("Unrecognized options: ([^, ]+)", said)):
        near = get_close_matches(unknown[1], [line.split(maxsplit=1)[0] for line in options], 1, 0)
        return f"{said}; did you mean {near[0]}?"
    return said


def _is_rule(line: str) -> bool:
    return not line.strip("─-╰╯")


def parse_seeds(text: str) -> list[int]:
    """Return the seeds that ``--seeds`` names, separated by commas.

    Raises:
        InputError: if they are not different numbers.
    """
    seeds = text.split(",")
    if not all(seed.strip().isdecimal() for seed in seeds) or len({int(seed) for seed in seeds}) < len(seeds):
        raise InputError(f"--seeds takes different integers, as in --seeds 1,2,3, not {text!r}")
    return [int(seed) for seed in seeds]


def take_option(words: Sequence[str], name: str) -> tuple[str | None, list[str]]:
    """Return the value of an option, given as ``--name value`` or ``--name=value``, and the words without it.

    Raises:
        InputError: when the option is there without a value.
    """
    value, rest = None, []
    left = iter(words)
    for word in left:
        option, equals, given = word.partition("=")
        if option != name:
            rest.append(word)
            continue
        value = given if equals else next(left, "")
        if not value or value.startswith("--"):
            raise InputError(f"{name} needs a value")
    return value, rest


def refuse_words(words: Sequence[str], command: str, advice: str = "") -> None:
    """Check that a command without arguments was given none.

    Raises:
        InputError: if it was given any.
    """
    if words:
        raise InputError(f"metarl {command} takes no arguments, but was given {' '.join(words)}{advice}")
