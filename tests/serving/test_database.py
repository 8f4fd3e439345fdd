"""The database: what is answered is on disk, whatever becomes of the disk, the database or the process."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from benchmarks.served_process import free_port
from metarl.errors import InputError, RunError
from metarl.numerics.distributions import DiagonalGaussian
from metarl.rollouts.rollout import Episode
from metarl.sampling.joint_acting import Choice
from metarl.serving import stored
from metarl.serving.database import SIZES, Database
from metarl.serving.models import METADATA, Round, Task
from metarl.serving.problems import NotStored
from metarl.serving.server import load_served, open_database
from metarl.serving.service import ADD_TASK
from tests.serving.serving import UNKNOWN, Server, lived, other, same, served
from tests.serving.test_rebuilding import make_env

BINARIES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


class Postgres:
    """A PostgreSQL server of Debian's package, with a database of its own."""

    def __init__(self, folder: Path) -> None:
        self._data, self._port = folder / "data", free_port()
        os.chmod(folder, 0o777)
        self._as_user("initdb", "-U", "metarl", "-A", "trust", "--no-sync")
        self.url = f"postgresql+psycopg://metarl@127.0.0.1:{self._port}/postgres"
        self.start()

    def start(self) -> None:
        options = f"-p {self._port} -k '' -c listen_addresses=127.0.0.1"
        self._as_user("pg_ctl", "-w", "-l", f"{self._data}.log", "-o", options, "start")

    def stop(self) -> None:
        """Stop as after a power cut."""
        self._as_user("pg_ctl", "-w", "-m", "immediate", "stop")

    def _as_user(self, program: str, *words: str) -> None:
        assert BINARIES is not None
        command = [str(BINARIES / program), "-D", str(self._data), *words]
        user = [] if os.getuid() else ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        subprocess.run([*user, *command], check=True, stdout=subprocess.DEVNULL, cwd="/")


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    if BINARIES is None:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    folder = Path("/tmp") / f"metarl-postgres-{os.getpid()}"  # whose parents the user postgres may enter
    folder.mkdir()
    found = Postgres(folder)
    yield found
    found.stop()
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def any_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the URL of a new database of each kind."""
    if request.param == "sqlite":
        yield request.getfixturevalue("url")
        return
    yield request.getfixturevalue("postgres").url
    engine = create_engine(request.getfixturevalue("postgres").url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()


def test_tasks_outlive_their_server(any_url: str, maml: str, url: str) -> None:
    env = make_env(maml)
    with served(maml, any_url) as server:
        whole = server.client.task(seed=2)
        expected = [lived(whole, env, start) for start in range(3)]
        task = server.client.task(seed=2)
        assert same(lived(task, env, 0), expected[0])
    with served(maml, any_url) as server:
        again = server.client.open(task.id)
        assert [same(lived(again, env, start), expected[start]) for start in (1, 2)] == [True, True]
        assert len(server.client.tasks()) == 2
        again.delete()
        assert [each["id"] for each in server.client.tasks()] == [whole.id]


@pytest.mark.parametrize("order", [1, -1])
def test_steps_with_and_without_an_outcome_share_a_commit(any_url: str, order: int) -> None:
    task = Task(id=UNKNOWN, created="", description="", adapt_after=1, seed=0)
    row = Round(task=task.id, number=0, seed=0, deterministic=False, recorded=True)
    steps = sum(SIZES) - 1  # with the other one, a statement of each size
    episode = Episode(np.zeros((steps + 1, 1)), np.zeros((steps, 1)), np.arange(steps, dtype=np.float32), True)
    recorded = stored.recorded_steps(task.id, 0, episode)
    one = torch.zeros(1, 1, 1)
    begun = stored.add_step(task.id, 0, steps, one, Choice(one, DiagonalGaussian(one, one), one))
    database = Database(any_url)
    try:
        database.write_now((ADD_TASK, task.model_dump()), stored.add_round(row))
        database.write_now(*[*recorded, begun][::order])
        *lived, last = database.read_now(lambda found: stored.read_steps(found, task.id, [0]))[0]
        assert b"".join(step.rewards for step in lived) == episode.rewards.tobytes()
        assert last.rewards is None
    finally:
        database.close()


def test_migrations_make_the_tables_of_the_models(any_url: str) -> None:
    database = Database(any_url)
    try:
        assert database.read_now(lambda found: compare_metadata(MigrationContext.configure(found), METADATA)) == []
    finally:
        database.close()


def test_a_database_of_a_newer_metarl_is_refused(any_url: str) -> None:
    database = Database(any_url)
    database.read_now(lambda found: found.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    database.close()
    with pytest.raises(InputError, match="cannot be used: a newer metarl made it; use that one, or another"):
        Database(any_url)


def test_a_database_has_one_server(any_url: str) -> None:
    database = Database(any_url)
    try:
        with pytest.raises(InputError, match="cannot be used: another server uses it; stop that one"):
            Database(any_url)
    finally:
        database.close()


def test_a_database_belongs_to_one_checkpoint(maml: str, url: str, tmp_path: Path) -> None:
    with served(maml, url):
        pass
    with pytest.raises(InputError, match=r"were acted in by another run, .*; serve that one, or give another"):
        open_database(url, load_served(other(tmp_path / "other"), None, "latest"))


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("nonsense://x", "--database takes a file, or a URL such as"),
        ("sqlite:////no/such/folder/x.sqlite", "unable to open database file; make it accessible, or give another"),
        ("postgresql+psycopg://nobody:secret@127.0.0.1:1/x", r"nobody:\*\*\*@127.0.0.1:1/x cannot be used: connection"),
    ],
)
def test_what_is_no_database_is_refused(url: str, line: str) -> None:
    with pytest.raises(InputError, match=line) as refusal:
        Database(url)
    assert "\n" not in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_a_full_disk_is_said_and_nothing_is_lost(maml: str, folder: Path) -> None:
    env = make_env(maml)
    with served(maml, f"sqlite:///{folder / 'whole'}") as server:
        expected = lived(server.client.task(seed=1), env, 0)
    with served(maml, f"sqlite:///{folder / 'full'}") as server:
        task = server.client.task(seed=1)
        observation, _ = env.reset(seed=0)
        task.act(observation)
        limit(server, 1)
        answer = server.post("/tasks", description="x" * 2000)
        while answer.status_code == 201:
            answer = server.post("/tasks", description="x" * 2000)
        assert answer.status_code == 503
        assert answer.json()["detail"] == "the database did not answer: database or disk is full; try again"
        limit(server, 2**30)
        for action, after, reward in expected:
            assert (task.act() == action).all()
            ended = task.step == len(expected) - 1
            task.feedback(reward, False, ended, after)
        assert task.state()["steps"] == len(expected)


def limit(server: Server, pages: int) -> None:
    """Let the database file have so many pages, or as many as it has."""
    server.service.database.read_now(lambda connection: connection.execute(text(f"PRAGMA max_page_count={pages}")))


def test_a_database_file_that_was_moved_is_not_written_to(maml: str, folder: Path) -> None:
    path = folder / "tasks.sqlite"
    with served(maml, f"sqlite:///{path}") as server:
        task = server.client.task()
        path.rename(folder / "moved")
        answer = server.post("/execute_task", task=task.id, observation=[0.0, 0.0])
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        (folder / "moved").rename(path)
        first = task.act([0.0, 0.0])
        assert (task.act() == first).all()


def test_postgresql_may_go_and_come_back(maml: str, postgres: Postgres, url: str) -> None:
    env = make_env(maml)
    with served(maml, url) as server:
        expected = lived(server.client.task(seed=1), env, 0)
    with served(maml, postgres.url) as server:
        task = server.client.task(seed=1)
        observation, _ = env.reset(seed=0)
        for number, (action, after, reward) in enumerate(expected):
            assert (task.act(observation) == action).all()
            if number == 1:
                postgres.stop()
                answer = server.post(
                    "/feedback", task=task.id, reward=reward, terminated=False, truncated=False, next_observation=after
                )
                assert answer.status_code == 503
                assert "\n" not in answer.json()["detail"]
                with pytest.raises(RunError, match="the database did not answer"):
                    task.state()
                postgres.start()
            task.feedback(reward, False, number == len(expected) - 1, after)
            observation = after
        assert task.state()["history"][0]["steps"] == len(expected)


def test_what_is_written_together_is_there_as_a_whole_or_not_at_all(any_url: str) -> None:
    task = Task(id="1" * 32, created="", description="", adapt_after=1, seed=0)
    row = Round(task=task.id, number=0, seed=0, deterministic=False, recorded=False)
    one = torch.zeros(1, 1, 1)
    outcome = [np.zeros(1, np.float32), np.zeros(1, np.bool_), np.ones(1, np.bool_), np.zeros((1, 1), np.float32)]
    database = Database(any_url)
    try:
        begun = stored.add_step(task.id, 0, 0, one, Choice(one, DiagonalGaussian(one, one), one))
        database.write_now((ADD_TASK, task.model_dump()), stored.add_round(row), begun)
        with pytest.raises(NotStored):
            database.write_now(stored.end_step(task.id, 0, 0, outcome), stored.add_round(row))
        (step,) = database.read_now(lambda found: stored.read_steps(found, task.id, [0]))[0]
        assert step.rewards is None
    finally:
        database.close()
