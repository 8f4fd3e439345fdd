"""What tests of commands share: a folder of their own to run in, and a trained run."""

from pathlib import Path

import pytest

from metarl.experiments.commands.main import main
from tests.runs import train_words


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a trained run; evaluations may write into it."""
    path = tmp_path_factory.mktemp("cli") / "run"
    assert main(train_words("bandit", "--iterations", 2, out=path)) == 0
    return str(path)
