from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.serving.serving import Server, served, trained


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the runs that are served."""
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="session")
def maml(runs: Path) -> str:
    return trained(runs, "maml-trpo")


@pytest.fixture(scope="session")
def rl2(runs: Path) -> str:
    return trained(runs, "rl2")


def new_folder(elsewhere: Path) -> TemporaryDirectory[str]:
    """Return a new folder for databases, in memory where there is such: every answer waits for its disk."""
    memory = Path("/dev/shm")
    return TemporaryDirectory(dir=memory if memory.is_dir() else elsewhere)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with new_folder(tmp_path) as path:
        yield Path(path)


@pytest.fixture
def url(folder: Path) -> str:
    """Return the URL of a new database."""
    return f"sqlite:///{folder / 'tasks.sqlite'}"


@pytest.fixture(scope="module")
def server(maml: str, runs: Path) -> Iterator[Server]:
    """Return a server that a module's tests share."""
    with new_folder(runs) as path, served(maml, f"sqlite:///{path}/tasks.sqlite") as found:
        yield found
