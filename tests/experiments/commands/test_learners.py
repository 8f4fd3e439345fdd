import pytest

from metarl.experiments.commands.main import main
from metarl.learning.learner import LEARNERS


def test_learners_are_all_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["learners"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert set(LEARNERS) <= set(lines)
