"""``metarl serve``: serve a trained learner that acts and adapts over HTTP."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metarl.errors import InputError
from metarl.experiments.commands.arguments import RunName
from metarl.experiments.commands.parsing import parse
from metarl.run.directory import CheckpointChoice, RunDirectory
from metarl.validation import require_counts, require_not_negative


@dataclass(frozen=True)
class ServeOptions:
    """Serve a trained learner: tasks are submitted, acted in, answered with feedback, and adapted to."""

    run: RunName
    """Directory of the run."""
    host: str = "127.0.0.1"
    """Address to listen on; any but this machine's own needs --token-file."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    token_file: str | None = None
    """File with the bearer token that requests must send."""
    database: str | None = None
    """SQLite file, or URL such as postgresql+psycopg://user@host/name; by default tasks.sqlite in the run directory."""
    open_tasks: int = 256
    """Tasks that stay in memory; others are rebuilt from the database when they are used."""
    max_tasks: int = 100_000
    """Maximum number of tasks in the database."""
    rate: int = 5000
    """Maximum number of requests per second from one address."""
    window: float = 1.0
    """Milliseconds for which the first request for an action waits for others, to act in one forward pass."""
    device: str | None = None
    """Torch device; by default the one the run was trained on."""
    checkpoint: CheckpointChoice = "latest"
    """Which checkpoint: the latest, the best on validation tasks, or the number of an iteration whose one is kept."""

    def __post_init__(self) -> None:
        require_counts(self, "open_tasks", "max_tasks", "rate")
        require_not_negative(self, "window")
        if not 0 <= self.port < 2**16:
            raise InputError(f"port must lie in [0, 65535], not {self.port}")


LOOPBACK = ("127.0.0.1", "::1", "localhost")


def run(words: Sequence[str]) -> None:
    """Serve until a signal comes.

    Raises:
        InputError: when the directory is not a run, options are invalid, the database or the port is not available, or
            the extra ``serve`` is not installed.
    """
    options = parse(ServeOptions, "metarl serve", words)
    try:
        from metarl.serving.app import Limits
        from metarl.serving.server import listen, load_served, open_database, read_token, serve
        from metarl.serving.service import Service
    except ModuleNotFoundError as error:
        raise InputError(f"metarl serve needs {error.name}: pip install 'metarl-gym[serve]'") from None
    token = read_token(options.token_file)
    if token is None and options.host not in LOOPBACK:
        raise InputError(f"anyone who can reach {options.host} could use the learner: pass a --token-file")
    served = load_served(options.run, options.device, options.checkpoint)
    with listen(options.host, options.port) as listener:
        database = open_database(database_url(options), served)
        service = Service(served, database, options.window / 1000, options.open_tasks, options.max_tasks)
        host = f"[{options.host}]" if ":" in options.host else options.host
        print(f"http://{host}:{listener.getsockname()[1]} (Ctrl-C stops it)", flush=True)
        serve(service, Limits(token, options.rate), listener)


def database_url(options: ServeOptions) -> str:
    """Return the URL of the database that the options name."""
    if options.database is not None and "://" in options.database:
        return options.database
    path = RunDirectory(options.run).path / "tasks.sqlite" if options.database is None else Path(options.database)
    return f"sqlite:///{path.expanduser()}"
