"""A source of training tasks that change inside a trial, without notice to the learner."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from tensordict import TensorDict

from metarl.errors import InputError
from metarl.families.splits import TaskSplit, task_keys
from metarl.sampling.task_source import TaskSource, register_task_source
from metarl.seeding import generator
from metarl.validation import require_unit


@dataclass(frozen=True)
class ChangingConfig:
    """Settings of tasks that change inside a trial, the task source changing."""

    change_probability: float = 0.25
    """Probability that an episode of a trial is one of another task than the episode before, with --task-source
    changing."""

    def __post_init__(self) -> None:
        require_unit(self, "change_probability")


@register_task_source
class ChangingTasks(TaskSource):
    """Draws tasks uniformly, and at each episode of a trial after the first replaces some of them by other ones.

    Raises:
        InputError: if there is only one training task.
    """

    name: ClassVar[str] = "changing"
    inside_trials: ClassVar[bool] = True

    def __init__(self, split: TaskSplit, run: Any) -> None:
        super().__init__(split, run)
        self.settings: ChangingConfig = run.changing
        if len(split.held_out_tasks("train", 2)) < 2:
            raise InputError("--task-source changing replaces a task by another one, but there is only 1 training task")

    def draw(self, count: int, seed: int, iteration: int) -> TensorDict:
        """Return independent tasks ``[count]``."""
        return self.split.train_tasks(count, seed, iteration)

    def follow(self, tasks: TensorDict, seed: int, iteration: int, episode: int) -> TensorDict:
        """Return the tasks with each replaced with ``change_probability``, independently."""
        stream = generator(seed, "changing tasks", iteration, episode)
        changed = torch.rand(len(tasks), generator=stream) < self.settings.change_probability
        after, before, attempt = tasks.clone(), task_keys(tasks), 0
        rows = changed.nonzero().flatten().tolist()
        while rows:
            keys = (episode, attempt) if attempt else (episode,)
            fresh = self.split.train_tasks(len(tasks), seed, iteration, *keys)
            after[rows] = fresh[rows]
            drawn, attempt = task_keys(fresh), attempt + 1
            rows = [row for row in rows if drawn[row] == before[row]]  # the same task again is no change
        return after
