"""The database, on one connection of one thread: what is written at the same time becomes durable by one commit.

A server owns its database as long as its connection lives: SQLite's file is locked exclusively, PostgreSQL holds an
advisory lock. Both end with the process, even when it is killed.
"""

import asyncio
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool
from sqlalchemy.sql.compiler import SQLCompiler

from metarl.errors import InputError
from metarl.serving.problems import NotStored
from metarl.serving.statements import Statement, Write

MIGRATIONS = Path(__file__).with_name("migrations")
# The key of PostgreSQL's advisory lock: any number, the same for all servers.
LOCK = 5_873_210_411
# No waiting when busy: another process that holds the lock keeps it as long as it lives.
PRAGMAS = ("busy_timeout=0", "locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON")
OTHER = "another server uses it; stop that one, or give this one another --database"
Value = TypeVar("Value")
Query = Callable[[Connection], Any]
# Rows of a statement; more take several. Powers of two, so that there are few statements to prepare.
SIZES = (64, 32, 16, 8, 4, 2, 1)


class Database:
    """Reads and writes of the service's tables.

    Args:
        url: as SQLAlchemy takes it, such as ``sqlite:///tasks.sqlite`` or ``postgresql+psycopg://user@host/name``.

    Raises:
        InputError: when it cannot be opened, another server has it, or a newer metarl made it.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._engine, self._file = _engine(url)
        self._waiting: queue.SimpleQueue[list[_Work] | None] = queue.SimpleQueue()
        self._gathered: list[_Work] = []
        self._connection: Connection | None = None
        self._prepared: dict[tuple[Statement, int], tuple[str, Sequence[str]]] = {}
        self._thread = threading.Thread(target=self._serve, name="database", daemon=True)
        try:
            self._migrate()
        except (SQLAlchemyError, NotStored) as error:
            self._disconnect()
            reason = _reason(error)
            told = reason == OTHER or isinstance(error, NotStored)
            advice = "" if told else "; make it accessible, or give another --database"
            raise InputError(f"the database {self.name} cannot be used: {reason}{advice}") from None
        self._thread.start()

    @property
    def name(self) -> str:
        """The URL without its password."""
        return make_url(self._url).render_as_string(hide_password=True)

    async def write(self, *writes: Write) -> None:
        """Write rows; they are on disk when this returns.

        Raises:
            NotStored: when they are not.
        """
        await self._gather(writes, None)

    async def read(self, query: Callable[[Connection], Value]) -> Value:
        """Return what a query finds.

        Raises:
            NotStored: when the database cannot be read.
        """
        found: Value = await self._gather((), query)
        return found

    def write_now(self, *writes: Write) -> None:
        """Write rows, for threads without an event loop; as ``write``."""
        self._queue(writes, None)

    def read_now(self, query: Callable[[Connection], Value]) -> Value:
        """Return what a query finds, for threads without an event loop; as ``read``."""
        found: Value = self._queue((), query)
        return found

    def close(self) -> None:
        """Finish what waits, and release the database."""
        self._waiting.put(None)
        self._thread.join()
        self._engine.dispose()

    def _queue(self, writes: tuple[Write, ...], query: Query | None) -> Any:
        """Queue work, and wait for its outcome."""
        done: Future[Any] = Future()
        self._waiting.put([_Work(writes, query, done)])
        return done.result()

    def _gather(self, writes: tuple[Write, ...], query: Query | None) -> "asyncio.Future[Any]":
        """Queue work together with all else of this turn of the event loop; return its future."""
        loop = asyncio.get_running_loop()
        if not self._gathered:
            loop.call_soon(self._send)
        done = loop.create_future()
        self._gathered.append(_Work(writes, query, done))
        return done

    def _send(self) -> None:
        works, self._gathered = self._gathered, []
        self._waiting.put(works)

    def _serve(self) -> None:
        while True:
            batch = [self._waiting.get()]
            while not self._waiting.empty():
                batch.append(self._waiting.get())
            works = [work for part in batch if part is not None for work in part]
            outcomes: list[Any]
            try:
                outcomes = self._commit(works)
            except Exception as error:
                self._disconnect()
                outcomes = [NotStored(f"the database did not answer: {_reason(error)}; try again")] * len(works)
            _deliver(list(zip((work.done for work in works), outcomes, strict=True)))
            if None in batch:
                self._disconnect()
                return

    def _commit(self, works: "list[_Work]") -> list[Any]:
        """Do everything in one transaction; return what the queries found."""
        if self._file is not None:
            self._file.check()
        connection = self._connected()
        with connection.begin():
            cursor = connection.connection.cursor()  # the driver's: SQLAlchemy's takes longer than the statement
            rows: dict[Statement, list[Mapping[str, Any]]] = {}
            for statement, values in (write for work in works for write in work.writes):
                rows.setdefault(statement, []).append(values)
            for statement, together in rows.items():
                for part in _parts(together):
                    sql, names = self._prepare(statement, len(part))
                    cursor.execute(sql, [values.get(name) for values in part for name in names])
            return [None if work.query is None else work.query(connection) for work in works]

    def _prepare(self, statement: Statement, rows: int) -> tuple[str, Sequence[str]]:
        """Return a statement as the driver takes it, and the names of a row's parameters; it is compiled once."""
        if (statement, rows) not in self._prepared:
            compiled = statement(rows).compile(dialect=self._engine.dialect)
            assert isinstance(compiled, SQLCompiler)
            assert compiled.positiontup is not None
            names = [name.removesuffix("_0") for name in compiled.positiontup[: len(compiled.positiontup) // rows]]
            self._prepared[statement, rows] = compiled.string, names
        return self._prepared[statement, rows]

    def _connected(self) -> Connection:
        """Return the connection, opened anew if it was lost.

        Raises:
            NotStored: when another server now has the database.
        """
        if self._connection is None:
            connection = self._engine.connect()
            if connection.dialect.name == "postgresql":
                with connection.begin():
                    free = connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK}).scalar_one()
                if not free:
                    connection.close()
                    raise NotStored(OTHER)
            self._connection = connection
        return self._connection

    def _disconnect(self) -> None:
        """Give up the connection and its lock; whatever is queued next opens another."""
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None

    def _migrate(self) -> None:
        """Bring the tables to this version of the schema."""
        config = Config(attributes={})
        config.set_main_option("script_location", str(MIGRATIONS))
        connection = self._connected()
        config.attributes["connection"] = connection
        try:
            with connection.begin():
                command.upgrade(config, "head")
        except CommandError:
            raise NotStored("a newer metarl made it; use that one, or another --database") from None
        if self._file is not None:
            self._file.note()


class _Work:
    """Rows to write or a query, and the future of its outcome."""

    def __init__(
        self, writes: tuple[Write, ...], query: Query | None, done: "Future[Any] | asyncio.Future[Any]"
    ) -> None:
        self.writes, self.query, self.done = writes, query, done


def _deliver(outcomes: list[tuple["Future[Any] | asyncio.Future[Any]", Any]]) -> None:
    """Set the outcomes of futures; an event loop is woken once for all of its own."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for done, outcome in outcomes:
        if isinstance(done, Future):
            _set(done, outcome)
        else:
            loops.setdefault(done.get_loop(), []).append((done, outcome))
    for loop, own in loops.items():
        loop.call_soon_threadsafe(_set_all, own)


def _set_all(outcomes: list[tuple["asyncio.Future[Any]", Any]]) -> None:
    for done, outcome in outcomes:
        if not done.cancelled():  # it is cancelled when its client has gone
            _set(done, outcome)


def _set(done: "Future[Any] | asyncio.Future[Any]", outcome: Any) -> None:
    if isinstance(outcome, NotStored):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)


class _File:
    """A database file, which must stay where it is: what is written to a removed file is lost with the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._number: int | None = None

    def note(self) -> None:
        """Take the file that is there as the right one."""
        self._number = os.stat(self._path).st_ino

    def check(self) -> None:
        """Raise ``FileNotFoundError`` when another file or none is there."""
        if os.stat(self._path).st_ino != self._number:
            raise FileNotFoundError(f"{self._path} was replaced by another file")


def _engine(url: str) -> tuple[Engine, _File | None]:
    """Return the engine of a URL, and the file of an SQLite database.

    Raises:
        InputError: when it is not the URL of a database.
    """
    try:
        style = "qmark" if make_url(url).get_backend_name() == "sqlite" else "format"  # parameters have an order
        engine = create_engine(url, poolclass=NullPool, paramstyle=style)
    except (ArgumentError, ImportError) as error:
        raise InputError(
            f"--database takes a file, or a URL such as postgresql+psycopg://user@host/name ({_reason(error)})"
        ) from None
    if engine.dialect.name != "sqlite":
        return engine, None

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # by default the driver begins transactions, but only before some statements
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.connection.cursor().execute("BEGIN")

    return engine, _File(Path(str(engine.url.database)))


def _parts(rows: Sequence[Value]) -> Iterator[Sequence[Value]]:
    """Yield the rows in parts, each of one of ``SIZES``."""
    start = 0
    while start < len(rows):
        size = next(size for size in SIZES if size <= len(rows) - start)
        yield rows[start : start + size]
        start += size


def _reason(error: BaseException) -> str:
    """Return the first line of what a database said."""
    said = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    return OTHER if said == "database is locked" else (said.strip() or type(error).__name__).splitlines()[0]
