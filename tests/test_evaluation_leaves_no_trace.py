"""Evaluation by the command changes nothing: not a file of the run, and not what the run goes on to compute.

That it leaves the learner in memory alone is tested by ``metarl/test_training_validation.py``.
"""

import shutil
from pathlib import Path

import pytest

from metarl.experiments.commands.main import main
from metarl.run.directory import RunDirectory
from metarl.training.train import resume, train
from tests.runs import numbers, same, tiny

# One of each kind: by gradient, with a memory, with a model, with replay buffers of steps and of trials, and of SB3.
KINDS = ["maml-trpo", "rl2", "varibad", "pearl", "recurrent-sac", "sac"]


def files(directory: Path) -> dict[str, bytes]:
    """Return what an evaluation only reads."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.suffix in (".pt", ".csv", ".json")}


def evaluate(directory: Path) -> dict[str, bytes]:
    """Evaluate a run by the command, and return what is in its files then."""
    assert main(["evaluate", str(directory), "--tasks", "3", "--steps", "1", "--checkpoint", "best"]) == 0
    return files(directory)


@pytest.mark.parametrize("name", KINDS)
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


def test_evaluating_the_best_leaves_the_latest_alone(tmp_path: Path) -> None:
    directory = train(tiny("reptile", tmp_path / "run", validate_every=1))
    evaluate(directory.path)
    assert RunDirectory(directory.path).load_checkpoint()["iteration"] == 2
