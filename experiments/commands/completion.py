"""``metarl completion``: a script that completes commands, names and options in bash, zsh or fish.

The script holds all words, so that a completion does not start Python. (argcomplete would import the package at every
key press; shtab wants one parser, where ours depends on learner and family.)
"""

import dataclasses
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from metarl.errors import InputError
from metarl.experiments.commands.main import COMMANDS
from metarl.experiments.published import MODULES
from metarl.listing import listed_families, listed_learners

SHELLS = ("bash", "zsh", "fish")
OF_TRAIN = (
    "--published",
    "--config",
    "--resume",
    "--resume-if-there",
    "--seeds",
    "--devices",
    "--max-restarts",
    "--from",
)
# Where words are offered: after which command, with which word next, and after how many words in all; None is any.
Place = tuple[str | None, str | None, int | None]


def run(words: Sequence[str]) -> None:
    """Print the script of a shell.

    Raises:
        InputError: unless one shell is named.
    """
    if len(words) != 1 or words[0] not in SHELLS:
        raise InputError(
            f"metarl completion takes the name of one shell ({', '.join(SHELLS)}), not {' '.join(words) or 'nothing'}"
        )
    print(script(words[0]))


def script(shell: str) -> str:
    """Return the script of a shell."""
    if shell == "fish":
        return _fish()
    return f"autoload -U +X bashcompinit && bashcompinit\n{_bash()}" if shell == "zsh" else _bash()


def places() -> Iterator[tuple[Place, list[str]]]:
    """Yield where words are offered, and which ones; the first place that fits counts."""
    learners, families = list(listed_learners()), list(listed_families())
    yield (None, None, 1), list(COMMANDS)
    yield ("train", "--published", 3), list(MODULES)
    yield ("train", None, 2), [*learners, *OF_TRAIN[:3]]
    yield ("train", None, 3), families
    for learner in learners:
        yield ("train", learner, None), [*OF_TRAIN, *_train_options(learner)]
    yield ("train", None, None), [*OF_TRAIN, *_train_options(None)]
    yield ("continual", None, 2), learners
    yield ("continual", None, 3), families
    yield ("families", None, 2), ["show"]
    yield ("families", "show", 3), families
    yield ("completion", None, 2), list(SHELLS)
    for command in COMMANDS:
        if options := _command_options("show_family" if command == "families" else command):
            yield (command, None, None), options


def _train_options(learner: str | None) -> list[str]:
    from metarl.learning.learner import LEARNERS
    from metarl.run.config import RunConfig

    return [*_options(RunConfig), *(_options(LEARNERS.find(learner).config_class) if learner else [])]


def _command_options(module: str) -> list[str]:
    """Return the options of a command: the fields of the dataclass ``...Options`` that its module defines, if any."""
    name = f"metarl.experiments.commands.{module}"
    own = [value for value in vars(import_module(name)).values() if getattr(value, "__module__", None) == name]
    kinds = [value for value in own if getattr(value, "__name__", "").endswith("Options") and module != "train"]
    return [option for kind in kinds for option in _options(kind)]


def _options(kind: Any) -> list[str]:
    """Return the options of a dataclass, with those of the dataclasses in it."""
    found = []
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.default_factory):
            found += _options(field.default_factory)
            continue
        name = field.name.replace("_", "-")
        found += [f"--{name}", f"--no-{name}"] if field.type is bool else [f"--{name}"]
    return found


def _bash() -> str:
    """Return a function for bash's ``complete``; where nothing fits, files are offered."""
    cases = []
    for (command, word, count), words in places():
        pattern = f"{count or '*'}:{command or '*'}:{word or '*'}"
        cases.append(f"    {pattern}) words='{' '.join(words)}' ;;")
    lines = ['  case "$COMP_CWORD:${COMP_WORDS[1]}:${COMP_WORDS[2]}" in', *cases, "  esac"]
    reply = '  COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))'
    return "\n".join(["_metarl() {", "  local words=", *lines, reply, "}", "complete -o default -F _metarl metarl"])


def _fish() -> str:
    """Return fish's rules: the words of a place are offered unless an earlier place fits."""
    function = """function __metarl_at
    set -l given (commandline -opc)
    test $argv[1] = '*' -o (count $given) = $argv[1]; and test $argv[2] = '*' -o "$given[2]" = $argv[2]
    and test $argv[3] = '*' -o "$given[3]" = $argv[3]
end"""
    rules = [function]
    earlier: list[tuple[str, str | None]] = []
    for (command, word, count), words in places():
        place = f"__metarl_at '{count or '*'}' '{command or '*'}' '{word or '*'}'"
        # Only a place of the same command, or of all, can fit as well.
        others = [each for each, of in earlier if of in (command, None)]
        condition = "; and ".join([place, *(f"not {other}" for other in others)])
        rules.append(f'complete -c metarl -n "{condition}" -a "{" ".join(words)}"')
        earlier.append((place, command))
    return "\n".join(rules)
