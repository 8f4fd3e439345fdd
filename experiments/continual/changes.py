"""Tasks that change inside a trial: what is trained, what is measured, and how soon the return is back."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tensordict import TensorDict

from metarl.errors import InputError
from metarl.evaluation.evaluate import load_run
from metarl.experiments.continual.streams import RUNS
from metarl.learning.learner import CHANGING
from metarl.numerics.statistics import Scores
from metarl.run.config import TrainConfig
from metarl.sampling.changing_tasks import ChangingConfig
from metarl.sampling.sampler import Sampler
from metarl.seeding import derive_seed

# Test tasks that trials begin with, at most.
MOST_TASKS = 40
# Share of what adaptation had gained before a change; once this much is regained, the learner has recovered.
SHARE = 0.9


@dataclass(frozen=True)
class Changes:
    """What is trained and measured.

    Attributes:
        base: in-context learner, family and settings.
        tasks: number K of tasks in a trial, each for as many of its episodes.
        methods: trials that it is trained on, of ``Learner.continual``.
        seeds: S seeds.
        out: folder of the report and of the runs.

    Raises:
        InputError: for an unknown method, and for trials that cannot be divided among that many tasks.
    """

    base: TrainConfig
    tasks: int
    methods: Sequence[str]
    seeds: Sequence[int]
    out: Path

    def __post_init__(self) -> None:
        able = self.base.learner_class.continual
        for method in self.methods:
            if method not in able:
                raise InputError(f"--methods of {self.base.learner} are {', '.join(able)}, not {method!r}")
        if self.tasks < 2:
            raise InputError(f"a trial whose task changes needs --tasks 2 or more, not {self.tasks}")
        if self.episodes % self.tasks or self.episodes < 2 * self.tasks:
            raise InputError(
                f"each of {self.tasks} tasks needs the same number of a trial's episodes, 2 or more: set "
                f"--episodes-per-trial to {2 * self.tasks} or a larger multiple of {self.tasks}, not {self.episodes}"
            )
        if (there := len(self.sequence)) < self.tasks:
            raise InputError(f"{self.base.family} has {there} test tasks, not {self.tasks}; use a smaller --tasks")

    @property
    def episodes(self) -> int:
        """Episodes of a trial."""
        return int(self.base.settings.episodes_per_trial)

    @property
    def episodes_each(self) -> int:
        """Consecutive episodes of each task of a trial."""
        return self.episodes // self.tasks

    @property
    def sequence(self) -> TensorDict:
        """The test tasks ``[N]``: trials begin with each of them, and go on with those after it."""
        return self.base.split().held_out_tasks("test", MOST_TASKS)

    def runs(self) -> Iterator[TrainConfig]:
        """Yield all runs."""
        for method in self.methods:
            yield from (self.run(method, seed) for seed in self.seeds)

    def run(self, method: str, seed: int) -> TrainConfig:
        """Return a run; in changing trials the task changes as often, on average, as in those that are measured."""
        chance = (self.tasks - 1) / (self.episodes - 1) if method == CHANGING else 0.0
        run = dataclasses.replace(
            self.base.run,
            seed=seed,
            out=str(self.out / RUNS / f"{method}-seed{seed}"),
            task_source="changing" if method == CHANGING else "uniform",
            changing=ChangingConfig(chance),
        )
        return dataclasses.replace(self.base, run=run)


@dataclass(frozen=True)
class Episodes:
    """The episodes of trials whose task changes.

    Shapes:
        returns: ``[S, N, E]``: mean return of seed s in episode e of the trials that begin with task n.
        env_steps: ``[S, E]``: mean steps of these episodes.
    """

    returns: Scores
    env_steps: Scores

    def recovery(self, episodes_each: int) -> list[list[int | None]]:
        """Return how soon each seed has recovered from each change; see ``recovered_in``."""
        return [recovered_in(returns.mean(0), episodes_each) for returns in self.returns]


def recovered_in(returns: Scores, episodes_each: int) -> list[int | None]:
    """Return the number of the first episode after each change in which the return is back, from 1; None for never.

    It is back when it is ``SHARE`` of the way from the trial's first episode, in which nothing was known, to the last
    one before the change.

    Args:
        returns: ``[E]``, means over trials in which every task is the first, the second and so on equally often.
        episodes_each: of each task.
    """
    found: list[int | None] = []
    for change in range(episodes_each, len(returns), episodes_each):
        level = returns[0] + SHARE * (returns[change - 1] - returns[0])
        back = np.flatnonzero(returns[change : change + episodes_each] >= level)
        found.append(int(back[0]) + 1 if len(back) else None)
    return found


def measured(experiment: Changes, method: str, emptied: bool) -> Episodes:
    """Return the episodes of a method's learners in trials of test tasks, ``episodes_per_task`` trials of each.

    Args:
        experiment: whose runs are complete.
        method: that they were trained by.
        emptied: whether the memory is emptied at a change, as if the learner were told.
    """
    places = [str(experiment.run(method, seed).run.out) for seed in experiment.seeds]
    returns, env_steps = zip(*(_measured(experiment, place, emptied) for place in places), strict=True)
    return Episodes(np.array(returns), np.array(env_steps))


def _measured(experiment: Changes, place: str, emptied: bool) -> tuple[np.ndarray, list[float]]:
    config, learner, _ = load_run(place)
    sampler, tasks = Sampler(config.make_family(), config.run.device), experiment.sequence
    trials, numbers = config.run.episodes_per_task, torch.arange(len(tasks))
    session = sampler.session(learner, tasks, trials)
    returns, env_steps = [], []
    for episode in range(experiment.episodes):
        met, within = divmod(episode, experiment.episodes_each)
        if episode and not within and emptied:
            session.begin(tasks[numbers.roll(-met)])
        elif episode:
            session.adapt()
            session.change(tasks[numbers.roll(-met)])
        rollout = sampler.run(session, derive_seed(0, "changes", episode))
        returns.append(rollout.episode_returns().mean(1).double().cpu().numpy())
        env_steps.append(rollout.env_steps / (len(tasks) * trials))
    return np.stack(returns, 1), env_steps
