"""The two ways in which metarl says no: the input is wrong, or the run failed."""


class MetarlError(Exception):
    """A failure whose message is meant for a person: one line, what is wrong, where, and what to do."""

    exit_code = 1


class InputError(MetarlError):
    """What the user gave is wrong; nothing was started (exit code 2 on the command line)."""

    exit_code = 2


class RunError(MetarlError):
    """A run that had started cannot go on (exit code 1 on the command line)."""
