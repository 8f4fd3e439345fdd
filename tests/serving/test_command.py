"""``metarl serve``: what its options refuse before anything is served."""

import socket
import sys
from pathlib import Path

import pytest

from metarl.errors import InputError
from metarl.experiments.commands.serve import ServeOptions, database_url, run

REFUSED = [
    (["--host", "0.0.0.0"], "anyone who can reach 0.0.0.0 could use the learner: pass a --token-file"),
    (["--port", "70000"], r"port must lie in \[0, 65535\], not 70000"),
    (["--open-tasks", "0"], "open_tasks must be at least 1, not 0"),
    (["--window", "-1"], "window must be 0 or more, not -1"),
    (["--token-file", "/no/such/file"], "cannot read the token from /no/such/file: .*No such file"),
    (["--token-file", "/dev/null"], "/dev/null must hold one line, the token, in ASCII and without spaces"),
    (["--database", "mysql+nothing://x"], "--database takes a file, or a URL such as"),
]


@pytest.mark.parametrize(("words", "line"), REFUSED)
def test_wrong_options_are_refused_in_one_line(words: list[str], line: str, maml: str) -> None:
    with pytest.raises(InputError, match=line) as refusal:
        run([maml, *words])
    assert "\n" not in str(refusal.value)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run directory of metarl"):
        run([str(tmp_path)])


def test_a_port_that_is_taken_is_refused(maml: str, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = f"cannot listen at 127.0.0.1:{port}: Address already in use; choose another --port"
        with pytest.raises(InputError, match=line):
            run([maml, "--port", str(port), "--database", str(folder / "tasks.sqlite")])


def test_a_missing_extra_is_named(maml: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "metarl.serving.server")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(InputError, match=r"metarl serve needs uvicorn: pip install 'metarl-gym\[serve\]'"):
        run([maml])


def test_the_database_is_in_the_run_unless_another_is_named() -> None:
    assert database_url(ServeOptions("runs/x")) == "sqlite:///runs/x/tasks.sqlite"
    assert database_url(ServeOptions("runs/x", database="here.sqlite")) == "sqlite:///here.sqlite"
    assert database_url(ServeOptions("runs/x", database="postgresql+psycopg://h/d")) == "postgresql+psycopg://h/d"
