"""The errors with which metarl ends early: the input is wrong, the run failed, or it was stopped."""


class MetarlError(Exception):
    """An error whose message is meant for users: one line, what is wrong, where, and what to do."""

    exit_code = 1


class InputError(MetarlError):
    """The user's input is wrong; nothing was started (exit code 2 on the command line)."""

    exit_code = 2


class RunError(MetarlError):
    """A run that had started failed (exit code 1 on the command line)."""


class RunStopped(MetarlError):
    """A signal stopped a run, which can be resumed (exit code 128 + the signal's number, as in shells)."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
