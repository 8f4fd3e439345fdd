import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.agents.gradient.maml_trpo import MamlTrpo, MamlTrpoConfig
from metarl.agents.in_context.rl2 import Rl2Config
from metarl.errors import InputError
from metarl.evaluation.evaluate import adaptation_curve, evaluate, load_run
from metarl.families.family import Transition
from metarl.families.tensor_family import State
from metarl.run.adaptation_curve import AdaptationCurve
from metarl.run.config import RunConfig, TrainConfig
from metarl.run.directory import RunDirectory
from metarl.sampling.sampler import Sampler
from metarl.training.train import train
from tests.fakes import EchoFamily, echo_tasks
from tests.runs import checkpoint_vector, contents, numbers, small


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a trained run, which these tests only read."""
    path = tmp_path_factory.mktemp("evaluation") / "run"
    train(small(path, "navigation-2d", horizon=5, iterations=2))
    return str(path)


def curve_of(returns: list[list[float]]) -> AdaptationCurve:
    matrix = np.array(returns)
    tasks = TensorDict({"goal": torch.zeros(len(matrix), 2)}, [len(matrix)])
    return AdaptationCurve(tasks, matrix, np.arange(matrix.shape[1]) * 10.0, 2, "test")


def test_the_same_evaluation_gives_the_same_numbers(run: str) -> None:
    one, other = (evaluate(run, tasks=3, steps=2) for _ in range(2))
    assert one.to_json() == other.to_json()


def test_another_seed_meets_the_same_tasks(run: str) -> None:
    one, other = (evaluate(run, tasks=3, steps=1, seed=seed) for seed in (0, 1))
    assert torch.equal(one.tasks["goal"], other.tasks["goal"])
    assert not np.array_equal(one.returns, other.returns)


def test_there_is_a_return_before_and_after_each_step(run: str) -> None:
    assert evaluate(run, tasks=3, steps=2).returns.shape == (3, 3)


def test_without_steps_there_is_the_return_before(run: str) -> None:
    assert evaluate(run, tasks=3, steps=0).returns.shape == (3, 1)


def test_the_first_tasks_do_not_depend_on_how_many_there_are(run: str) -> None:
    few, many = evaluate(run, tasks=2, steps=0), evaluate(run, tasks=4, steps=0)
    assert torch.equal(few.tasks["goal"], many.tasks["goal"][:2])


def test_steps_before_each_column_are_counted(run: str) -> None:
    # 3 episodes of 5 steps before each adaptation; nobody arrives at a goal in 5 steps of an untrained walk.
    assert evaluate(run, tasks=3, steps=2).env_steps.tolist() == [0, 15, 30]


def test_a_return_is_the_mean_of_whole_episodes(run: str) -> None:
    config, learner, _ = load_run(run)
    sampler, tasks = Sampler(config.make_family()), config.split().held_out_tasks("test", 2)
    curve = adaptation_curve(learner, sampler, tasks, 0, 4)
    # At most 5 steps at a distance of at most |(0.5, 0.5)| + 5 * |(0.1, 0.1)| from the goal.
    assert (curve.returns < 0).all()
    assert (curve.returns > -5 * (2**0.5)).all()


def test_the_learner_does_not_change(run: str) -> None:
    config, learner, _ = load_run(run)
    before = {key: value.clone() for key, value in learner.state_dict()["params"].items()}
    tasks = config.split().held_out_tasks("test", 2)
    adaptation_curve(learner, Sampler(config.make_family()), tasks, 2, 3)
    after = learner.state_dict()["params"]
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_run_does_not_change(run: str) -> None:
    before = contents(run)
    evaluate(run, tasks=2, steps=1)
    assert contents(run) == before


def test_it_leaves_the_settings_of_the_process_alone(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("malloc was changed")

    monkeypatch.setattr("metarl.devices.runtime.ctypes.CDLL", refuse)
    evaluate(run, tasks=2, steps=1)


def test_test_tasks_are_none_that_was_trained_on(run: str) -> None:
    config, _, _ = load_run(run)
    tested = evaluate(run, tasks=30, steps=0).tasks["goal"]
    trained = torch.cat([config.split().train_tasks(20, 1, iteration)["goal"] for iteration in range(50)])
    assert not (tested[:, None] == trained[None]).all(-1).any()


def test_a_finite_family_gives_its_test_tasks_and_no_more(tmp_path: Path) -> None:
    # 21 goals: 4 of them (20 %) are test tasks.
    train(small(tmp_path / "run", "gridnavi", horizon=5, iterations=1))
    goals = evaluate(str(tmp_path / "run"), tasks=40, steps=0).tasks["goal"]
    assert len(goals) == 4
    assert len({tuple(goal.tolist()) for goal in goals}) == 4


def test_a_finite_familys_test_tasks_are_never_trained_on(tmp_path: Path) -> None:
    split = small(family="gridnavi").split()
    tested = {tuple(goal) for goal in split.held_out_tasks("test", 40)["goal"].tolist()}
    trained = {tuple(goal) for iteration in range(20) for goal in split.train_tasks(20, 1, iteration)["goal"].tolist()}
    assert len(trained) == 13
    assert not tested & trained


def test_json_holds_a_tasks_parameters_and_its_returns_step_by_step(run: str) -> None:
    curve = evaluate(run, tasks=3, steps=2)
    content = curve.to_json()
    assert content["returns"] == curve.returns.tolist()
    assert content["tasks"] == [{"goal": goal} for goal in curve.tasks["goal"].tolist()]
    assert content["part"] == "test"
    assert content["actions"] == "sampled"
    assert content["episodes_per_step"] == 3


@pytest.mark.parametrize("changes", [{"steps": -1}, {"tasks": 0}, {"tasks": -2}, {"episodes": 0}, {"episodes": -1}])
def test_counts_that_make_no_sense_are_refused(run: str, changes: dict[str, int]) -> None:
    with pytest.raises(InputError):
        evaluate(run, **{"tasks": 2, "steps": 1, **changes})


def test_a_gain_is_the_last_return_minus_the_first() -> None:
    assert curve_of([[1, 5, 4], [0, 0, -2]]).gains.tolist() == [3, -2]


def test_an_interval_holds_the_mean() -> None:
    values = np.array([1.0, 2.0, 4.0, 9.0])
    low, high = curve_of([[0]]).interval(values)
    assert low < values.mean() < high


def test_an_interval_of_equal_values_is_a_point() -> None:
    assert curve_of([[0]]).interval(np.full(5, 3.0)) == (3.0, 3.0)


def test_an_interval_widens_with_the_spread() -> None:
    curve, values = curve_of([[0]]), np.arange(10.0)
    (low, high), (wide_low, wide_high) = curve.interval(values), curve.interval(3 * values)
    assert wide_high - wide_low == pytest.approx(3 * (high - low))


def test_an_interval_narrows_with_the_number_of_tasks() -> None:
    curve = curve_of([[0]])
    (low, high), (narrow_low, narrow_high) = (curve.interval(np.tile([0.0, 1.0], count)) for count in (4, 64))
    # 128 values and 8: Student's quantiles are 1.979 and 2.365, the standard errors 1 to (127 / 7) ** 0.5.
    assert (narrow_high - narrow_low) / (high - low) == pytest.approx(1.979 / 2.365 / (127 / 7) ** 0.5, rel=1e-3)


def test_one_task_gives_no_interval() -> None:
    assert np.isnan(curve_of([[0]]).interval(np.array([1.0]))).all()


def test_a_run_loads_with_what_it_was_trained_for(run: str) -> None:
    config, _, iteration = load_run(run)
    assert isinstance(config, TrainConfig)
    assert (config.family, config.run.horizon, iteration) == ("navigation-2d", 5, 2)


def test_a_loaded_learner_has_the_checkpoints_parameters(run: str) -> None:
    params = load_run(run)[1].state_dict()["params"]
    assert torch.equal(torch.cat([params[name].reshape(-1) for name in sorted(params)]), checkpoint_vector(run))


def copy_of(run: str, place: Path) -> RunDirectory:
    shutil.copytree(run, place)
    return RunDirectory(place)


def test_a_checkpoint_of_another_network_is_refused(run: str, tmp_path: Path) -> None:
    directory = copy_of(run, tmp_path / "copy")
    content = directory.load_checkpoint()
    content["learner"]["params"]["weight_0"] = torch.zeros(2, 9)
    directory.save_checkpoint(content)
    with pytest.raises(InputError, match=r"does not match the run's config\.json"):
        load_run(str(directory.path))


@pytest.mark.parametrize("content", [{}, {"learner": {}}, {"learner": {"params": {}}, "env_steps": 1}], ids=str)
def test_a_checkpoint_with_parts_missing_is_refused(run: str, tmp_path: Path, content: dict[str, Any]) -> None:
    directory = copy_of(run, tmp_path / "copy")
    about = {name: directory.load_checkpoint()[name] for name in ("tracking_id", "config_hash")}
    directory.save_checkpoint({**about, "iteration": 9, **content})
    with pytest.raises(InputError, match=r"does not match the run's config\.json"):
        load_run(str(directory.path))


def test_a_run_that_has_only_begun_cannot_be_evaluated(run: str, tmp_path: Path) -> None:
    directory = copy_of(run, tmp_path / "copy")
    shutil.rmtree(directory.checkpoints)
    directory.metrics.unlink()
    with pytest.raises(InputError, match="has no checkpoint yet"):
        evaluate(str(directory.path))


def test_an_untrained_learner_can_be_evaluated_from_python() -> None:
    config = small(family="bandit")
    tasks = config.split().held_out_tasks("validation", 3)
    curve = adaptation_curve(config.make_learner(), Sampler(config.make_family()), tasks, 1, 2, "validation")
    assert curve.returns.shape == (3, 2)


def test_validation_and_test_meet_different_tasks() -> None:
    split = small(family="bandit").split()
    one, other = (split.held_out_tasks(part, 5)["probabilities"] for part in ("validation", "test"))
    assert not (one[:, None] == other[None]).all(-1).any()


@pytest.mark.slow
def test_maml_trpo_learns_to_adapt_on_2d_navigation(tmp_path: Path) -> None:
    from metarl.agents.gradient.maml_trpo import MamlTrpoConfig
    from metarl.run.config import RunConfig

    run_config = RunConfig(iterations=15, track="disabled", out=str(tmp_path / "run"))
    train(TrainConfig("maml-trpo", "navigation-2d", run_config, MamlTrpoConfig(inner_lr=0.5)))
    curve = evaluate(str(tmp_path / "run"), tasks=40, steps=1)
    assert len(numbers(tmp_path / "run")) == 15
    assert curve.gains.mean() > 10
    assert curve.interval(curve.gains)[0] > 0


@dataclass(frozen=True)
class Lucky(EchoFamily):
    """Echo tasks that succeed in their second step, if their identity is even."""

    name: ClassVar[str] = "lucky"

    def transition(
        self, state: State, actions: Tensor, tasks: TensorDict, generator: torch.Generator
    ) -> tuple[State, Transition]:
        following, outcome = super().transition(state, actions, tasks, generator)
        success = (following["steps"] == 2) & (tasks["identity"] % 2 == 0)
        return following, outcome._replace(info={"success": success.float()})


def lucky_curve(lifetimes: list[int]) -> AdaptationCurve:
    family = Lucky()
    learner = MamlTrpo(family, MamlTrpoConfig(hidden_sizes=(8,)), 1, torch.device("cpu"))
    return adaptation_curve(learner, Sampler(family), echo_tasks([10, 11, 12], lifetimes), steps=1, episodes=2)


def test_success_in_any_step_of_an_episode_counts() -> None:
    success = lucky_curve([4, 4, 4]).success
    assert success is not None
    assert success.tolist() == [[1, 1], [0, 0], [1, 1]]


def test_success_after_the_end_does_not_count() -> None:
    success = lucky_curve([4, 4, 1]).success
    assert success is not None
    assert success.tolist() == [[1, 1], [0, 0], [0, 0]]


def test_success_is_written_where_it_is_known() -> None:
    assert lucky_curve([4, 4, 4]).to_json()["success"] == [[1, 1], [0, 0], [1, 1]]


def test_deterministic_columns_are_of_the_policys_mode(run: str) -> None:
    one, other = (evaluate(run, tasks=3, steps=0, seed=seed, deterministic=True) for seed in (0, 1))
    # The start, the goals and the mode leave nothing to chance.
    assert np.allclose(one.returns, other.returns)
    assert one.to_json()["actions"] == "deterministic"


def test_deterministic_columns_are_beside_the_same_adaptation(run: str) -> None:
    sampled, mode = (evaluate(run, tasks=3, steps=2, deterministic=deterministic) for deterministic in (False, True))
    assert mode.env_steps.tolist() == sampled.env_steps.tolist()
    assert not np.array_equal(mode.returns, sampled.returns)


def test_tasks_outside_the_distribution_lie_outside(run: str) -> None:
    curve = evaluate(run, tasks=5, steps=0, part="ood")
    assert curve.part == "ood"
    assert (curve.tasks["goal"].abs().amax(-1) > 0.5).all()


def test_training_tasks_are_other_tasks(run: str) -> None:
    train_tasks, test_tasks = (evaluate(run, tasks=3, steps=0, part=part).tasks["goal"] for part in ("train", "test"))
    assert not (train_tasks[:, None] == test_tasks[None]).all(-1).any()


def test_a_learner_that_remembers_trials_spends_a_trials_steps(tmp_path: Path) -> None:
    config = TrainConfig(
        "rl2",
        "navigation-2d",
        RunConfig(1, horizon=5, tasks_per_batch=2, episodes_per_task=3, out=str(tmp_path / "run"), track="disabled"),
        Rl2Config(episodes_per_trial=3, hidden_size=4),
    )
    train(config)
    curve = evaluate(tmp_path / "run", tasks=2)
    # Its columns are the trial's episodes; three trials of a task side by side are not one experience.
    assert curve.env_steps.tolist() == [0, 5, 10]
