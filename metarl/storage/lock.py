"""A lock on a run directory, so that only one process at a time writes into it.

The lock is the file ``.lock``, which names its owner. It is created by hard-linking a complete file to that name.
``link`` is atomic on local file systems and on NFS (where O_EXCL is not, before NFSv3), so if two processes start at
the same moment, one gets the lock and the other is refused.

An owner on this machine is dead if no process has its pid and start time. An owner on another machine cannot be checked
like this; it renews the lock's modification time every half minute, and counts as dead after five minutes without
renewal. That time is compared with the modification time of a newly created file, so both come from the file server's
clock. An owner that was only suspended and lost its lock notices before it writes again, and exits.
"""

import contextlib
import errno
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from metarl.devices.processes import Processes
from metarl.errors import InputError, RunError

NAME = ".lock"
RENEWAL_SECONDS = 30.0
DEAD_AFTER_SECONDS = 300.0
WITHOUT_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)  # errors of file systems without hard links


@dataclass(frozen=True)
class Owner:
    """The process that holds the lock.

    Attributes:
        host: its machine and pid namespace, which differs between containers.
        pid: its process id.
        started: when the process was started, in clock ticks since boot.
        since: when it took the lock, in readable form.
        token: unique for each lock.
    """

    host: str
    pid: int
    started: int
    since: str
    token: str


def is_lock_file(name: str) -> bool:
    """Return whether a file of that name is a lock, or an unfinished one left by a killed process."""
    return name.startswith(NAME)


def is_being_written(folder: Path) -> bool:
    """Return whether a living process holds the lock on a run directory."""
    path = folder / NAME
    return _lives(_read(path), _age(path, time.time()))


class RunLock:
    """The lock on a run directory, a context manager.

    Args:
        folder: the run directory, which must exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / NAME
        self._owner = Owner(
            _host(), os.getpid(), _start_time(os.getpid()), time.strftime("%Y-%m-%d %H:%M:%S"), uuid.uuid4().hex
        )
        self._released = threading.Event()

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            InputError: if a living process holds it, or the folder cannot be written to.
        """
        own = self._folder / f"{NAME}.{self._owner.token}"
        try:
            own.write_text(json.dumps(asdict(self._owner)))
            while not _link(own, self._path):
                self._remove_if_dead(own.stat().st_mtime)
        except OSError as error:
            raise InputError(
                f"cannot lock {self._folder}: {error.strerror}; choose another --out, or make it writable"
            ) from None
        finally:
            own.unlink(missing_ok=True)
        threading.Thread(target=self._renew, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        if self._is_own(_read(self._path)):
            self._path.unlink(missing_ok=True)

    def check(self) -> None:
        """Check that this process still holds the lock; called before each write.

        Raises:
            RunError: if another process holds it, or it was removed.
        """
        if not self._is_own(_read(self._path)):
            raise RunError(
                f"another process has taken over {self._folder}, or {self._path} was removed; this process ends "
                "without writing any more"
            )

    def _is_own(self, owner: Owner | None) -> bool:
        return owner is not None and owner.token == self._owner.token

    def _remove_if_dead(self, now: float) -> None:
        """Remove the lock if its owner is dead.

        Raises:
            InputError: if the owner is alive.
        """
        owner, age = _read(self._path), _age(self._path, now)
        if owner is None and age is None:
            return  # it was released in between
        if _lives(owner, age):
            who = "another process" if owner is None else f"process {owner.pid} on {owner.host} since {owner.since}"
            raise InputError(
                f"{self._folder} is being written by {who}; wait for it to end, or choose another --out "
                f"(if that process is gone, remove {self._path})"
            )
        # Another process may have taken over already: the moved file is put back if it is not the dead owner's.
        moved = self._folder / f"{NAME}.{uuid.uuid4().hex}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(self._path, moved)
        if moved.exists() and _read(moved) != owner:
            _link(moved, self._path)
        moved.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._released.wait(RENEWAL_SECONDS):
            with contextlib.suppress(OSError):
                if self._is_own(_read(self._path)):
                    os.utime(self._path)


@contextlib.contextmanager
def locked(folder: Path, processes: Processes) -> Iterator[RunLock]:
    """Hold the lock on a run directory, on the first of several processes, which alone may check it.

    Raises:
        InputError: on every process, when a living program has it, or the folder cannot be written.
    """
    lock = RunLock(folder)
    with contextlib.ExitStack() as stack:

        def take() -> None:
            stack.enter_context(lock)

        processes.from_first(take)
        yield lock


def _link(file: Path, name: Path) -> bool:
    """Hard-link a file to another name, and return whether that succeeded.

    The number of links decides, because NFS may lose the server's reply to a successful call. On file systems without
    hard links, the file is copied to the name with exclusive creation.
    """
    try:
        os.link(file, name)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in WITHOUT_LINKS:
            raise
        try:
            with open(name, "x") as stream:
                stream.write(file.read_text())
        except FileExistsError:
            return False
        return True
    return file.stat().st_nlink == 2


def _read(path: Path) -> Owner | None:
    try:
        return Owner(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _age(path: Path, now: float) -> float | None:
    try:
        return now - path.stat().st_mtime
    except FileNotFoundError:
        return None


def _lives(owner: Owner | None, age: float | None) -> bool:
    if owner is not None and owner.host == _host():
        return _start_time(owner.pid) == owner.started
    return age is not None and age < DEAD_AFTER_SECONDS


def _host() -> str:
    """Return the name of this machine, with its pid namespace if there is one."""
    try:
        return f"{socket.gethostname()} ({os.readlink('/proc/self/ns/pid')})"
    except OSError:
        return socket.gethostname()


def _start_time(pid: int) -> int:
    """Return when a process was started, 0 if the system does not report it, -1 if the process has ended."""
    try:
        # The second field is the command in parentheses, which may contain spaces; the start time is the 22nd.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return -1 if fields[0] in "ZX" else int(fields[19])  # a zombie has ended
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return -1
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return -1
    except PermissionError:
        pass
    return 0
