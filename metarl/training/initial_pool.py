"""Episodes of every training task with which a replay buffer is filled before the first update."""

from collections.abc import Sequence
from functools import partial
from typing import Protocol, runtime_checkable

import torch

from metarl.devices.processes import Processes
from metarl.errors import InputError
from metarl.families.splits import TaskSplit
from metarl.learning.learner import Learner
from metarl.rollouts.rollout import Rollout
from metarl.run.config import RunConfig
from metarl.sampling.sampler import Sampler
from metarl.seeding import derive_seed


@runtime_checkable
class Prefilled(Protocol):
    """A learner whose replay buffer is filled before its first update.

    Attributes:
        initial_steps: environment steps in each training task; 0 for none.
    """

    initial_steps: int

    def add_to_replay(self, rollouts: Sequence[Rollout]) -> None:
        """Add the episodes of trials to the replay buffer."""
        ...


def check_initial_pool(run: RunConfig, learner: Learner, processes: int) -> None:
    """Check that the replay buffer can be filled, if the learner wants that.

    Raises:
        InputError: if there is no fixed set of training tasks, no environment, or fewer tasks than processes.
    """
    if not isinstance(learner, Prefilled) or not learner.initial_steps:
        return
    if run.data is not None:
        raise InputError("initial_steps are environment steps, and with --data there are none; omit --initial-steps")
    if run.train_tasks is None:
        raise InputError("initial_steps are collected in every task of a fixed set: also pass --train-tasks 100")
    if run.train_tasks < processes:
        raise InputError(f"{processes} processes need --train-tasks {processes} or more, not {run.train_tasks}")


def collect_initial_pool(learner: Learner, sampler: Sampler, split: TaskSplit, run: RunConfig, seed: int) -> int:
    """Collect trials of all training tasks; in none of their episodes is anything known about the task.

    There are ``episodes_per_task`` trials of each task, and as many again until there are ``initial_steps`` steps.

    Args:
        learner: which keeps them.
        sampler: of its family.
        split: with ``train_tasks`` training tasks.
        run: settings of the run.
        seed: of the episodes.

    Returns:
        Number of environment steps, in all processes.

    Raises:
        InputError: if the pool is larger than the replay buffer.
        RunError: if sampling fails.
    """
    if not isinstance(learner, Prefilled) or not learner.initial_steps:
        return 0
    team: Processes = learner.processes
    tasks = split.held_out_tasks("train", run.train_tasks or 1)
    shard = team.shard(len(tasks))
    taken, number = torch.zeros(shard.stop - shard.start, dtype=torch.int64), 0
    while not team.all(bool((taken >= learner.initial_steps).all())):
        session = sampler.session(learner, tasks[shard.rows], run.episodes_per_task, shard)
        seeds = (derive_seed(seed, "initial pool", number, step) for step in range(learner.inner_steps + 1))
        rollouts = [team.together(partial(sampler.run, session, each)) for each in seeds]
        learner.add_to_replay(rollouts)
        if any(replay.kept < replay.added for replay in learner.replays().values()):
            raise InputError(
                f"{learner.initial_steps:,} initial_steps of {len(tasks):,} tasks do not fit into the replay buffer; "
                "use a larger --replay-size"
            )
        taken += sum(rollout.valid.sum((1, 2)).cpu() for rollout in rollouts)
        number += 1
    return sum(team.counts(int(taken.sum())))
