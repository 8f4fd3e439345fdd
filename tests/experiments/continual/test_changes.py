"""When a return is back after a change of the task, and the trials in which that is measured."""

from pathlib import Path

import numpy as np
import pytest
import torch

from metarl.experiments.commands.continual import experiment_of, train_all
from metarl.experiments.continual.changes import Changes, Episodes, measured, recovered_in
from metarl.sampling.sampler import Sampler


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        ([0.0, 10.0, 9.0, 10.0], [1]),  # 90 % of the way from 0 to 10
        ([0.0, 10.0, 8.9, 9.1], [2]),
        ([0.0, 10.0, 8.9, 8.9], [None]),
        ([-10.0, 0.0, -1.0, 2.0, -5.0, 0.9], [1, 2]),  # the second change is after a return of 2
    ],
)
def test_when_the_return_is_back(returns: list[float], expected: list[int | None]) -> None:
    assert recovered_in(np.array(returns), 2) == expected


def test_recovery_is_that_of_the_mean_over_first_tasks() -> None:
    returns = np.array([[[0.0, 8.0, 2.0, 9.0], [0.0, 12.0, 2.0, 9.0]], [[0.0, 1.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0]]])
    assert Episodes(returns, np.ones((2, 4))).recovery(2) == [[2], [1]]


def test_a_trial_goes_on_with_the_next_task_in_the_same_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["rl2", "gridnavi", "--episodes-per-trial", "4", "--hidden-size", "4", "--iterations", "1"]
    words += ["--horizon", "3", "--episodes-per-task", "2", "--tasks-per-batch", "2", "--methods", "constant"]
    experiment = experiment_of([*words, "--out", str(tmp_path)])
    assert isinstance(experiment, Changes)
    train_all(experiment)
    goals, memories, run = [], [], Sampler.run

    def watched(self: Sampler, session: object, seed: int) -> object:
        goals.append(session.tasks["goal"])  # type: ignore[attr-defined]
        memories.append(hasattr(session.state, "memory"))  # type: ignore[attr-defined]
        return run(self, session, seed)  # type: ignore[arg-type]

    monkeypatch.setattr(Sampler, "run", watched)
    for emptied in (False, True):
        measured(experiment, "constant", emptied)
    first = experiment.sequence["goal"]
    for number, met in enumerate(goals):
        assert torch.equal(met, first if number % 4 < 2 else first.roll(-1, 0))
    assert memories == [False, True, True, True, False, True, False, True]
