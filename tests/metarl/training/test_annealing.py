"""No run goes on after its step size has decayed to 0."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from metarl.errors import InputError
from metarl.run.directory import RunDirectory
from metarl.training.train import resume, train
from tests.runs import contents, tiny

LEARNERS = ["maml-ppo", "reptile", "rl2", "pearl", "recurrent-sac", "amago"]


def run(learner: str, out: Path, iterations: int, anneal: int, **settings: Any) -> RunDirectory:
    config = tiny(learner, out, iterations=iterations, **settings)
    return train(dataclasses.replace(config, settings=dataclasses.replace(config.settings, anneal_iterations=anneal)))


@pytest.mark.parametrize("learner", LEARNERS)
def test_more_iterations_than_the_step_size_lasts_are_refused(learner: str, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"to 0 in 2 iterations, but there would be 3; use --anneal-iterations 3, or 0"
    ):
        run(learner, tmp_path / "run", 3, 2)
    assert not (tmp_path / "run").exists()
    done = run(learner, tmp_path / "run", 2, 2).path
    before = contents(done)
    advice = f"--from {done} --anneal-iterations 3 --iterations 1"
    with pytest.raises(
        InputError, match=f"{done} would go on to 3; start a new run with the same options and {advice}"
    ):
        resume(done, 3)
    assert contents(done) == before
    with pytest.raises(
        InputError, match="there would be 3, with the 2 of the run that it starts from; use --anneal-iter"
    ):
        run(learner, tmp_path / "next", 1, 2, start_from=str(done))
    assert len(run(learner, tmp_path / "next", 1, 3, start_from=str(done)).read_metrics()) == 1


def test_a_step_size_that_is_constant_lasts_for_ever(tmp_path: Path) -> None:
    assert len(resume(run("rl2", tmp_path / "run", 1, 0).path, 2).read_metrics()) == 2
