"""A replay buffer that is filled with episodes of all training tasks before the first update."""

from pathlib import Path
from typing import Any

import pytest
import torch

from metarl.agents.in_context.pearl import Pearl
from metarl.agents.in_context.pearl_config import PearlConfig
from metarl.devices.processes import ONE_PROCESS
from metarl.errors import InputError
from metarl.rollouts.rollout import Rollout
from metarl.run.config import RunConfig, TrainConfig
from metarl.run.directory import RunDirectory
from metarl.sampling.sampler import Sampler
from metarl.training.initial_pool import check_initial_pool, collect_initial_pool
from metarl.training.train import resume, train
from tests.runs import numbers, same

SMALL: dict[str, Any] = {"hidden_sizes": (4,), "updates_per_iteration": 1, "batch_size": 4, "replay_size": 1000}
# A trial of 2 episodes of 4 steps; 2 trials of each task.
STEPS = 2 * 2 * 4


def config(out: Path | str | None = None, initial: int = 20, iterations: int = 2, **settings: Any) -> TrainConfig:
    run = RunConfig(iterations, tasks_per_batch=2, episodes_per_task=2, horizon=4, train_tasks=5, track="disabled")
    run = RunConfig(**{**vars(run), "out": None if out is None else str(out)})
    return TrainConfig("pearl", "navigation-2d", run, PearlConfig(**{**SMALL, **settings}, initial_steps=initial))


def collected(chosen: TrainConfig, learner: Pearl) -> int:
    sampler = Sampler(chosen.make_family())
    return collect_initial_pool(learner, sampler, chosen.split(), chosen.run, seed=1)


def test_every_training_task_gets_so_many_steps_acting_on_the_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = config(initial=STEPS + 1)
    learner = chosen.make_learner()
    assert isinstance(learner, Pearl)
    remembered: list[list[Rollout]] = []
    add = Pearl.add_to_replay

    def watched(self: Pearl, rollouts: Any) -> None:
        remembered.append(list(rollouts))
        add(self, rollouts)

    monkeypatch.setattr(Pearl, "add_to_replay", watched)
    opened: list[Any] = []
    start = Pearl.open
    monkeypatch.setattr(Pearl, "open", lambda self, state, *rest: opened.append(state) or start(self, state, *rest))
    assert collected(chosen, learner) == 2 * STEPS * 5  # in whole trials, so twice as many
    goals = chosen.split().held_out_tasks("train", 5)["goal"]
    assert all(torch.equal(each.tasks["goal"], goals) for rollouts in remembered for each in rollouts)
    assert len(opened) == 4
    assert not any(state.shift.any() or state.precision.any() for state in opened)
    assert learner.replay.num_tasks == 10
    assert int(learner.replay.num_transitions) == 2 * STEPS * 5


def test_they_count_as_env_steps_of_the_first_iteration(tmp_path: Path) -> None:
    train(config(tmp_path / "with"))
    train(config(tmp_path / "without", initial=0))
    one, other = (RunDirectory(tmp_path / name).read_metrics() for name in ("with", "without"))
    assert [float(row["env_steps"] or 0) for row in other] == [2 * STEPS, 4 * STEPS]
    pool = 2 * STEPS * 5  # 20 steps are two rounds
    assert [float(row["env_steps"] or 0) for row in one] == [pool + 2 * STEPS, pool + 4 * STEPS]
    assert float(one[0]["replay_transitions"] or 0) == pool + 2 * STEPS
    assert one[0]["return_before"] == other[0]["return_before"]  # the iterations' own episodes are the same


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_resumed_run_gives_the_same_numbers(tmp_path: Path, stopped: int) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(config(whole, iterations=3))
    train(config(parts, iterations=1))
    if not stopped:  # as if it was killed before the first checkpoint after the pool
        for path in (parts / "checkpoints").glob("iteration-1*"):
            path.unlink()
    resume(parts, iterations=3)
    assert numbers(parts) == numbers(whole)
    one, other = (RunDirectory(path).load_checkpoint() for path in (parts, whole))
    assert same(one["learner"], other["learner"])
    assert one["env_steps"] == other["env_steps"]


@pytest.mark.parametrize(
    ("run", "processes", "message"),
    [
        ({"train_tasks": None}, 1, "in every task of a fixed set: also pass --train-tasks"),
        ({}, 6, "6 processes need --train-tasks 6 or more, not 5"),
    ],
)
def test_a_pool_needs_a_fixed_set_of_tasks(run: dict[str, Any], processes: int, message: str) -> None:
    chosen = config()
    with pytest.raises(InputError, match=message):
        check_initial_pool(RunConfig(**{**vars(chosen.run), **run}), chosen.make_learner(), processes)


def test_a_pool_larger_than_the_replay_buffer_is_refused() -> None:
    chosen = config(replay_size=STEPS * 9)
    with pytest.raises(InputError, match="20 initial_steps of 5 tasks do not fit into the replay buffer"):
        collected(chosen, chosen.make_learner())  # type: ignore[arg-type]


def test_other_learners_have_none() -> None:
    chosen = TrainConfig("rl2", "navigation-2d", RunConfig(horizon=4))
    check_initial_pool(chosen.run, chosen.make_learner(), ONE_PROCESS.size)
    assert collected(chosen, chosen.make_learner()) == 0  # type: ignore[arg-type]


def test_a_metric_compares_the_tasks_of_one_iteration() -> None:
    with pytest.raises(InputError, match="initial_steps need the task encoder critic, not contrastive"):
        PearlConfig(initial_steps=10, task_encoder="contrastive")
