import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict

from metarl.agents.in_context.rl2 import Rl2, Rl2Config
from metarl.errors import InputError
from metarl.evaluation.evaluate import evaluate
from metarl.families.family import make_family
from metarl.families.splits import TaskSplit, task_keys
from metarl.rollouts.rollout import Episode, Rollout
from metarl.run.config import RunConfig, TrainConfig
from metarl.run.directory import RunDirectory
from metarl.sampling.changing_tasks import ChangingConfig, ChangingTasks
from metarl.sampling.sampler import Sampler
from metarl.sampling.session import Session
from metarl.sampling.task_source import (
    TASK_SOURCES,
    PlrConfig,
    PrioritisedTasks,
    StreamConfig,
    TaskSource,
    TaskStream,
    UniformTasks,
    register_task_source,
)
from metarl.training.train import resume, train
from tests.runs import checkpoint_vector, numbers, small

SPLIT = TaskSplit(make_family("navigation-2d"))


def plr(**settings: Any) -> PrioritisedTasks:
    return PrioritisedTasks(SPLIT, RunConfig(plr=PlrConfig(**settings)))


def rollouts(tasks: TensorDict, *returns: list[list[float]]) -> list[Rollout]:
    """Return rollouts of one-step episodes with these returns ``[N][E]``, one rollout for each argument."""

    return [
        Rollout.from_episodes(
            [[Episode(np.zeros((2, 1)), np.zeros((1, 1)), np.array([value]), True) for value in task] for task in each],
            tasks,
        )
        for each in returns
    ]


def met(source: PrioritisedTasks, scores: list[float], iterations: list[int] | None = None) -> TensorDict:
    """Let a source meet tasks whose regret estimates are these; return the tasks."""
    tasks = SPLIT.train_tasks(len(scores), "met")
    for index, score in enumerate(scores):
        iteration = 0 if iterations is None else iterations[index]
        source.report(rollouts(tasks[index : index + 1], [[score]], [[0.0]]), iteration)
    return tasks


def test_uniform_tasks_are_those_of_the_split() -> None:
    drawn = UniformTasks(SPLIT, RunConfig()).draw(5, 3, 7)
    assert task_keys(drawn) == task_keys(SPLIT.train_tasks(5, 3, 7))


def test_before_anything_was_met_all_tasks_are_new() -> None:
    assert task_keys(plr(replay_probability=1.0).draw(5, 3, 7)) == task_keys(SPLIT.train_tasks(5, 3, 7))


def test_the_score_is_the_highest_return_so_far_minus_the_latest_mean() -> None:
    source, tasks = plr(), SPLIT.train_tasks(2)
    source.report(rollouts(tasks, [[1.0, 5.0], [0.0, 0.0]], [[2.0, 4.0], [0.0, 0.0]]), 0)
    assert source.scores.tolist() == [5 - 3, 0]
    source.report(rollouts(tasks, [[1.0, 1.0], [0.0, 0.0]], [[4.0, 4.0], [1.0, 0.0]]), 1)
    assert source.scores.tolist() == [5 - 4, 1 - 0.5]


def test_replay_goes_by_rank_and_staleness() -> None:
    source = plr(score_temperature=0.5, staleness_weight=0.2)
    met(source, [1.0, 3.0, 2.0], [4, 2, 1])
    # Kept in the order of scores 3, 2, 1: ranks 1, 2, 3, of weights 1, 1/4, 1/9; ages 3, 4 and 1 at iteration 5.
    by_rank = torch.tensor([1, 1 / 4, 1 / 9], dtype=torch.float64)
    expected = 0.8 * by_rank / by_rank.sum() + 0.2 * torch.tensor([3, 4, 1], dtype=torch.float64) / 8
    torch.testing.assert_close(source.probabilities(5), expected)


@settings(deadline=None)
@given(
    scores=st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=20),
    temperature=st.floats(0.01, 10),
    weight=st.floats(0, 1),
    iteration=st.integers(0, 50),
)
def test_replay_is_a_distribution(scores: list[float], temperature: float, weight: float, iteration: int) -> None:
    source = plr(score_temperature=temperature, staleness_weight=weight)
    met(source, scores)
    found = source.probabilities(iteration)
    assert found.shape == (len(scores),)
    assert math.isclose(float(found.sum()), 1.0, abs_tol=1e-9)
    assert bool((found >= 0).all())


def test_high_scores_are_replayed_more_often() -> None:
    source = plr(replay_probability=1.0, score_temperature=0.3, staleness_weight=0.0)
    first, *_ = task_keys(met(source, [9.0, *range(9)]))
    drawn = [task_keys(source.draw(1, 0, iteration))[0] for iteration in range(200)]
    share = drawn.count(first) / 200
    assert abs(share - float(source.probabilities(0)[0])) < 0.1
    assert share > 0.5


def test_a_task_is_replayed_once_in_an_iteration_and_new_ones_fill_the_rest() -> None:
    source = plr(replay_probability=1.0)
    known = set(task_keys(met(source, [1.0, 2.0, 3.0])))
    drawn = task_keys(source.draw(5, 0, 0))
    assert len(set(drawn)) == 5
    assert set(drawn[:3]) == known
    assert drawn[3:] == task_keys(SPLIT.train_tasks(2, 0, 0))


def test_the_share_that_is_replayed_is_the_probability() -> None:
    source = plr(replay_probability=0.3)
    known = set(task_keys(met(source, [float(score) for score in range(50)])))
    shares = [sum(key in known for key in task_keys(source.draw(50, 0, each))) / 50 for each in range(20)]
    assert abs(sum(shares) / 20 - 0.3) < 0.05


def test_the_highest_scores_are_kept() -> None:
    source = plr(replayed_tasks=2)
    met(source, [1.0, 3.0, 2.0])
    assert source.scores.tolist() == [3.0, 2.0]


def test_a_restored_source_draws_the_same() -> None:
    source, other = plr(), plr()
    met(source, [1.0, 3.0, 2.0], [4, 2, 1])
    other.load_state_dict(source.state_dict())
    for iteration in range(5, 8):
        assert task_keys(source.draw(4, 0, iteration)) == task_keys(other.draw(4, 0, iteration))


@pytest.mark.parametrize("family", ["random-mazes", "navigation-2d", "gridnavi"])
def test_a_resumed_run_with_replayed_tasks_ends_at_the_same_numbers(family: str, tmp_path: Path) -> None:
    run: dict[str, Any] = {"task_source": "plr", "horizon": 5} if family != "gridnavi" else {"task_source": "plr"}
    smaller = {"size": 5} if family == "random-mazes" else {}
    for name, iterations in (("straight", 3), ("resumed", 2)):
        config = small(tmp_path / name, family, iterations=iterations, **run)
        train(dataclasses.replace(config, family_overrides=smaller))
    resume(tmp_path / "resumed", iterations=3)
    assert numbers(tmp_path / "straight") == numbers(tmp_path / "resumed")
    assert torch.equal(checkpoint_vector(tmp_path / "straight"), checkpoint_vector(tmp_path / "resumed"))


def test_it_makes_a_difference(tmp_path: Path) -> None:
    for source in ("uniform", "plr"):
        train(small(tmp_path / source, "navigation-2d", horizon=5, task_source=source))
    assert numbers(tmp_path / "uniform") != numbers(tmp_path / "plr")


@pytest.mark.parametrize("source", ["uniform", "plr"])
@pytest.mark.parametrize("family", ["navigation-2d", "gridnavi"])
def test_only_a_fixed_set_of_tasks_is_met(
    family: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample, seen = Sampler.run, []

    def watched(self: Sampler, session: Session, *rest: Any) -> Rollout:
        seen.append(session.tasks)
        return sample(self, session, *rest)

    monkeypatch.setattr(Sampler, "run", watched)
    train(small(tmp_path / "run", family, iterations=10, horizon=3, train_tasks=3, task_source=source))
    training = seen[: 2 * 10]  # what follows is validation
    met_keys = {key for tasks in training for key in task_keys(tasks)}
    first = TaskSplit(make_family(family, horizon=3)).held_out_tasks("train", 3)
    assert met_keys == set(task_keys(first))
    assert RunDirectory(tmp_path / "run").read_config()["run"]["train_tasks"] == 3
    # Evaluating on training tasks measures these.
    monkeypatch.undo()
    assert task_keys(evaluate(tmp_path / "run", part="train").tasks) == task_keys(first)
    assert len(evaluate(tmp_path / "run", part="test", tasks=4).tasks) == 4


def test_a_limit_leaves_the_split_what_it_is() -> None:
    limited = TaskSplit(SPLIT.family, 0, train_limit=3)
    assert limited.fingerprint() == SPLIT.fingerprint()
    for part in ("validation", "test"):
        assert task_keys(limited.held_out_tasks(part, 5)) == task_keys(SPLIT.held_out_tasks(part, 5))


def test_more_training_tasks_than_there_are_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has only 13 training tasks, not 14; use a smaller"):
        train(small(tmp_path / "run", "gridnavi", train_tasks=14))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"replay_probability": 1.5}, "replay_probability must lie in"),
        ({"replayed_tasks": 0}, "replayed_tasks must be at least 1"),
        ({"score_temperature": 0.0}, "score_temperature must be positive"),
        ({"staleness_weight": -0.1}, "staleness_weight must lie in"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        PlrConfig(**settings)


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(InputError, match="no task source is called 'unifrom'; did you mean uniform"):
        RunConfig(task_source="unifrom")


def test_a_source_of_ones_own_is_named_by_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_tasks.py").write_text(
        "from metarl.sampling.task_source import TaskSource, register_task_source\n"
        "@register_task_source\n"
        "class First(TaskSource):\n"
        "    name = 'first'\n"
        "    def draw(self, count, seed, iteration):\n"
        "        return self.split.held_out_tasks('train', count)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    train(small(tmp_path / "run", iterations=2, task_source="my_tasks:first"))
    resume(tmp_path / "run", iterations=3)
    assert len(numbers(tmp_path / "run")) == 3
    del TASK_SOURCES["first"]


def test_registering_makes_a_source_known() -> None:
    class Nothing(TaskSource):
        name = "nothing"

        def draw(self, count: int, seed: int, iteration: int) -> TensorDict:
            return self.split.train_tasks(count, seed)

    register_task_source(Nothing)
    assert TASK_SOURCES.find("nothing") is Nothing
    del TASK_SOURCES["nothing"]


def test_a_stream_meets_its_tasks_in_turn_and_then_again() -> None:
    run = RunConfig(train_tasks=3, stream=StreamConfig(iterations_per_task=2, first_task=1))
    stream = TaskStream(TaskSplit(make_family("navigation-2d"), train_limit=3), run)
    drawn = [stream.draw(2, seed, iteration) for seed, iteration in enumerate(range(7))]
    assert all(torch.equal(each["goal"][0], each["goal"][1]) for each in drawn)
    expected = stream.tasks["goal"][[1, 1, 2, 2, 0, 0, 1]]
    assert torch.equal(torch.stack([each["goal"][0] for each in drawn]), expected)


def test_a_stream_needs_a_number_of_tasks() -> None:
    with pytest.raises(InputError, match="set that number with --train-tasks"):
        TaskStream(SPLIT, RunConfig())


def changing(chance: float) -> ChangingTasks:
    return ChangingTasks(SPLIT, RunConfig(changing=ChangingConfig(chance)))


def test_each_task_changes_with_the_given_probability() -> None:
    tasks = changing(0.3).draw(2000, 1, 0)
    after = changing(0.3).follow(tasks, 1, 0, 1)
    changed = (after["goal"] != tasks["goal"]).any(-1)
    assert changed.float().mean() == pytest.approx(0.3, abs=0.04)
    later = changing(0.3).follow(after, 1, 0, 2)
    assert ((later["goal"] != after["goal"]).any(-1) != changed).any()
    assert torch.equal(changing(0.0).follow(tasks, 1, 0, 1)["goal"], tasks["goal"])
    assert not torch.isin(task_hashes(changing(1.0).follow(tasks, 1, 0, 1)), task_hashes(tasks)).any()


def test_of_few_tasks_each_changes_as_often() -> None:
    split = TaskSplit(make_family("half-cheetah-dir"))
    source = ChangingTasks(split, RunConfig(changing=ChangingConfig(0.5)))
    tasks = source.draw(2000, 1, 0)
    assert (source.follow(tasks, 1, 0, 1)["direction"] != tasks["direction"]).float().mean() == pytest.approx(
        0.5, abs=0.04
    )
    with pytest.raises(InputError, match="replaces a task by another one, but there is only 1 training task"):
        ChangingTasks(TaskSplit(make_family("half-cheetah-dir"), train_limit=1), RunConfig())


def task_hashes(tasks: TensorDict) -> torch.Tensor:
    return torch.tensor([hash(key) for key in task_keys(tasks)])


def test_a_trial_goes_on_in_the_tasks_that_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[torch.Tensor] = []
    monkeypatch.setattr(Rl2, "update", lambda self, rollouts: met.extend(each.tasks["goal"] for each in rollouts) or {})
    run = RunConfig(1, tasks_per_batch=20, episodes_per_task=1, horizon=3, out=str(tmp_path / "run"), track="disabled")
    run = dataclasses.replace(run, task_source="changing", changing=ChangingConfig(0.5))
    config = TrainConfig("rl2", "navigation-2d", run, Rl2Config(episodes_per_trial=3, hidden_size=4))
    train(config)
    source = ChangingTasks(config.split(), run)
    tasks, expected = source.draw(20, 1, 0), []
    for episode in range(3):
        tasks = source.follow(tasks, 1, 0, episode) if episode else tasks
        expected.append(tasks["goal"])
    assert torch.equal(torch.stack(met), torch.stack(expected))


def test_learners_of_one_task_at_a_time_are_refused() -> None:
    with pytest.raises(InputError, match=r"maml-trpo learns one task at a time; --task-source changing is for .*rl2"):
        TrainConfig("maml-trpo", "navigation-2d", RunConfig(task_source="changing"))
