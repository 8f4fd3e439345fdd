"""Evaluation changes nothing: not a file of the run, not a learner, and not what the run goes on to compute."""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest

from metarl.evaluation import adaptation_curve
from metarl.experiments.commands.main import main
from metarl.learner import LEARNERS, Learner
from metarl.rollout import Rollout
from metarl.run_directory import RunDirectory
from metarl.sampler import Sampler
from metarl.splits import TaskSplit
from metarl.training import resume, train
from tests.runs import numbers, same, tiny

every_learner = pytest.mark.parametrize("name", LEARNERS)


def files(directory: Path) -> dict[str, bytes]:
    """Return what an evaluation only reads."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.suffix in (".pt", ".csv", ".json")}


def evaluate(directory: Path) -> dict[str, bytes]:
    """Evaluate a run by the command, and return what is in its files then."""
    assert main(["evaluate", str(directory), "--tasks", "3", "--steps", "1", "--checkpoint", "best"]) == 0
    return files(directory)


@every_learner
def test_a_run_evaluated_twice_gives_the_same_file_keeps_the_others_and_continues_as_one_that_was_not(
    name: str, tmp_path: Path
) -> None:
    before = files(train(tiny(name, tmp_path / "one", iterations=1, validate_every=1)).path)
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    first, second = evaluate(tmp_path / "one"), evaluate(tmp_path / "one")
    assert first == second
    assert {file: content for file, content in second.items() if file != "evaluation.json"} == before
    one, other = (resume(tmp_path / run, iterations=2) for run in ("one", "other"))
    assert numbers(one.path) == numbers(other.path)
    assert same(*(run.load_checkpoint()["learner"] for run in (one, other)))


@every_learner
def test_a_learner_that_was_evaluated_learns_on_as_one_that_was_not(name: str, tmp_path: Path) -> None:
    def learned(evaluated: bool) -> Any:
        config = tiny(name, tmp_path)
        learner, sampler, split = config.make_learner(), Sampler(config.make_family()), config.split()
        learner.update(sample(learner, sampler, split, 0))
        if evaluated:
            before = copy.deepcopy(learner.state_dict())
            adaptation_curve(learner, sampler, split.held_out_tasks("test", 2), learner.inner_steps + 1, episodes=2)
            assert same(learner.state_dict(), before)
        learner.update(sample(learner, sampler, split, 1))
        return learner.state_dict()

    assert same(learned(evaluated=True), learned(evaluated=False))


def sample(learner: Learner, sampler: Sampler, split: TaskSplit, iteration: int) -> list[Rollout]:
    """Return the rollouts of one training iteration."""
    tasks = split.train_tasks(2, iteration)
    state, rollouts = learner.begin(2), []
    for step in range(learner.inner_steps + 1):
        if step > 0:
            state = learner.adapt(state, rollouts[-1])
        rollouts.append(sampler.collect(learner, state, tasks, 2, 10 * iteration + step))
    return rollouts


def test_evaluating_the_best_leaves_the_latest_alone(tmp_path: Path) -> None:
    directory = train(tiny("reptile", tmp_path / "run", validate_every=1))
    evaluate(directory.path)
    assert RunDirectory(directory.path).load_checkpoint()["iteration"] == 2
