"""Validation on the way: what it measures, what it leaves alone, and the best checkpoint that it chooses."""

from pathlib import Path
from typing import Any

import pytest
from tensordict import TensorDict

from metarl.errors import InputError, RunError
from metarl.evaluation.evaluate import adaptation_curve, evaluate, load_run
from metarl.rollouts.rollout import Rollout
from metarl.run.config import RunConfig
from metarl.run.directory import RunDirectory, iteration_of
from metarl.sampling.sampler import Sampler
from metarl.sampling.session import Session
from metarl.training.train import resume, train
from tests.runs import SELF_CONTAINED, VALIDATION_TASKS, numbers, same, script_validation, small, tiny

COLUMNS = ["validation/return_before", "validation/return_after", "validation/gain"]


def trained(path: Path, iterations: int = 4, **run: Any) -> RunDirectory:
    return train(small(path, "navigation-2d", horizon=5, iterations=iterations, **run))


def measured(directory: RunDirectory) -> list[float | None]:
    return [row["validation/return_after"] for row in directory.read_metrics()]


def without_validation(directory: RunDirectory) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key not in COLUMNS} for row in numbers(directory.path)]


@pytest.fixture(scope="module")
def often(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Return a run of 4 iterations that was validated after the third and at its end."""
    return trained(tmp_path_factory.mktemp("often") / "run", validate_every=3)


def test_it_is_measured_as_often_as_asked_and_at_the_end(often: RunDirectory) -> None:
    assert [value is not None for value in measured(often)] == [False, False, True, True]


def test_by_default_it_is_measured_at_the_end_alone(tmp_path: Path) -> None:
    assert [value is not None for value in measured(trained(tmp_path / "run"))] == [False, False, False, True]


def test_what_is_measured_is_the_adaptation_curve_of_the_validation_tasks(often: RunDirectory) -> None:
    config, learner, _ = load_run(often.path)
    tasks = config.split().held_out_tasks("validation", VALIDATION_TASKS)
    curve = adaptation_curve(learner, Sampler(config.make_family()), tasks, 1, 3, "validation")
    before, after = curve.returns.mean(0).tolist()
    last = often.read_metrics()[-1]
    assert [float(last[name]) for name in COLUMNS] == [before, after, after - before]


def test_the_test_tasks_are_never_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[TensorDict] = []
    run = Sampler.run

    def spy(self: Sampler, session: Session, seed: int) -> Rollout:
        met.append(session.tasks)
        return run(self, session, seed)

    monkeypatch.setattr(Sampler, "run", spy)
    directory = trained(tmp_path / "run", validate_every=2)
    config, _, _ = load_run(directory.path)
    goals = {tuple(goal) for tasks in met for goal in tasks["goal"].tolist()}
    split = config.split()
    assert {tuple(goal) for goal in split.held_out_tasks("validation", VALIDATION_TASKS)["goal"].tolist()} <= goals
    assert goals.isdisjoint(tuple(goal) for goal in split.held_out_tasks("test", 100)["goal"].tolist())


@pytest.mark.parametrize("name", SELF_CONTAINED)
def test_training_is_the_same_with_it_and_without(name: str, tmp_path: Path) -> None:
    often = train(tiny(name, tmp_path / "often", validate_every=1))
    seldom = train(tiny(name, tmp_path / "seldom"))
    assert without_validation(often) == without_validation(seldom)
    assert same(often.load_checkpoint()["learner"], seldom.load_checkpoint()["learner"])


@pytest.mark.parametrize("family", ["navigation-2d", "half-cheetah-vel", "gridnavi", "cartpole-params"])
def test_so_it_is_where_both_use_the_same_worlds(family: str, tmp_path: Path) -> None:
    # As many training tasks as there are for validation: the sampler has one set of worlds for both.
    shape = {"tasks_per_batch": VALIDATION_TASKS, "episodes_per_task": 1, "horizon": 4, "iterations": 3}
    often, seldom = (train(small(tmp_path / str(k), family, validate_every=k, **shape)) for k in (1, 0))
    assert without_validation(often) == without_validation(seldom)
    assert same(often.load_checkpoint()["learner"], seldom.load_checkpoint()["learner"])


def test_a_run_that_was_stopped_and_resumed_has_the_same_columns_and_the_same_best(tmp_path: Path) -> None:
    straight = trained(tmp_path / "straight", validate_every=2)
    trained(tmp_path / "resumed", iterations=3, validate_every=2)
    # The old end was validated because it was the end; that is forgotten.
    assert measured(RunDirectory(tmp_path / "resumed"))[2] is not None
    resumed = resume(tmp_path / "resumed", iterations=4)
    assert numbers(resumed.path) == numbers(straight.path)
    for choice in ("latest", "best"):
        one, other = (run.load_checkpoint(run.find_checkpoint(choice)) for run in (straight, resumed))  # type: ignore[arg-type]
        assert same(one["learner"], other["learner"])
        assert (one["iteration"], one["validation"]) == (other["iteration"], other["validation"])


def test_the_best_checkpoint_is_the_first_that_did_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script_validation(monkeypatch, [-3.0, -1.0, -2.0, -1.0])
    directory = trained(tmp_path / "run", validate_every=1)
    assert directory.load_checkpoint(directory.find_checkpoint("best"))["iteration"] == 2
    assert directory.load_checkpoint(directory.find_checkpoint("latest"))["iteration"] == 4


def test_a_resumed_run_knows_the_best_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script_validation(monkeypatch, [-3.0, -1.0, -2.0, -1.5])
    trained(tmp_path / "run", iterations=2, validate_every=1)
    directory = resume(tmp_path / "run", iterations=4)
    assert iteration_of(directory.find_checkpoint("best")) == 2


def test_an_end_between_validations_may_be_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script_validation(monkeypatch, [-3.0, -1.0])
    directory = trained(tmp_path / "run", iterations=3, validate_every=2)
    assert directory.find_checkpoint("best") == directory.checkpoint
    assert iteration_of(directory.checkpoint) == 3


def test_the_end_of_a_run_without_intervals_is_its_best(tmp_path: Path) -> None:
    directory = trained(tmp_path / "run", iterations=1)
    assert directory.find_checkpoint("best") == directory.checkpoint


def test_the_best_checkpoint_is_evaluated_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_validation(monkeypatch, [-1.0, -2.0])
    directory = trained(tmp_path / "run", iterations=2, validate_every=1)
    config, learner, iteration = load_run(directory.path, checkpoint="best")
    assert iteration == 1
    tasks = config.split().held_out_tasks("test", 5)
    expected = adaptation_curve(learner, Sampler(config.make_family()), tasks, 2, 3)
    best, latest = (evaluate(directory.path, 5, 2, checkpoint=choice) for choice in ("best", "latest"))  # type: ignore[arg-type]
    assert (best.returns == expected.returns).all()
    assert (best.returns != latest.returns).any()


def test_without_a_validation_there_is_no_best(tmp_path: Path) -> None:
    directory = trained(tmp_path / "run", iterations=1)
    content = directory.load_checkpoint()
    directory.save_checkpoint({**content, "validation": None})  # it was stopped before its end
    with pytest.raises(InputError, match=r"no checkpoint of .* has been validated, so there is no best one"):
        load_run(directory.path, checkpoint="best")


def test_a_validation_that_fails_keeps_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*given: Any) -> None:
        raise RunError("the simulation is unstable")

    with monkeypatch.context() as patch:
        patch.setattr("metarl.training.loop.adaptation_curve", failing)
        with pytest.raises(RunError, match=r"validation after iteration 1: the simulation is unstable; .* contains"):
            trained(tmp_path / "run", validate_every=2)
    directory = RunDirectory(tmp_path / "run")
    assert directory.load_checkpoint()["iteration"] == len(directory.read_metrics()) == 2
    assert without_validation(resume(directory.path)) == without_validation(trained(tmp_path / "straight"))


def test_a_negative_interval_is_refused() -> None:
    with pytest.raises(InputError, match="validate_every must be 0 or more, not -1"):
        RunConfig(validate_every=-1)
