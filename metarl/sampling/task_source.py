"""Sources of training tasks: drawn uniformly from the split, replayed by their learning potential, or one by one."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.devices.processes import ONE_PROCESS, Processes
from metarl.errors import InputError
from metarl.families.splits import TaskSplit, task_keys
from metarl.registry import Registry
from metarl.rollouts.rollout import Rollout
from metarl.seeding import generator
from metarl.validation import require_counts, require_not_negative, require_positive, require_unit


@dataclass(frozen=True)
class PlrConfig:
    """Settings of prioritised level replay, the task source plr."""

    replay_probability: float = 0.5
    """Probability that a task is replayed instead of newly drawn, with --task-source plr."""
    replayed_tasks: int = 1000
    """Number of tasks with the highest scores to keep for replay."""
    score_temperature: float = 0.3
    """Temperature of the rank distribution: near 0 replays only the highest score, large values all tasks equally."""
    staleness_weight: float = 0.1
    """Weight of staleness, the time since a task was last seen, in the replay distribution."""

    def __post_init__(self) -> None:
        require_unit(self, "replay_probability", "staleness_weight")
        require_counts(self, "replayed_tasks")
        require_positive(self, "score_temperature")


@dataclass(frozen=True)
class StreamConfig:
    """Settings of a stream of tasks, the task source stream."""

    iterations_per_task: int = 20
    """Iterations on each task before the next one, with --task-source stream."""
    first_task: int = 0
    """Number of the task that comes first, counted from 0."""

    def __post_init__(self) -> None:
        require_counts(self, "iterations_per_task")
        require_not_negative(self, "first_task")


class TaskSource(ABC):
    """Draws the training tasks of each iteration, and may use the outcome of earlier ones.

    Users' own sources are registered with ``register_task_source`` and referred to as ``module:name`` on the command
    line.

    Attributes:
        name: name on the command line.
        inside_trials: whether tasks change inside trials.
        processes: the processes that train together. Each draws all tasks of an iteration, and must draw the same ones,
            so what ``report`` learns from this process's tasks has to be shared.

    Args:
        split: split of the family's tasks; only training tasks may be drawn.
        run: the run's ``RunConfig``, from which a source reads its settings.
    """

    name: ClassVar[str]
    inside_trials: ClassVar[bool] = False
    processes: Processes = ONE_PROCESS

    def __init__(self, split: TaskSplit, run: Any) -> None:
        self.split = split

    @abstractmethod
    def draw(self, count: int, seed: int, iteration: int) -> TensorDict:
        """Return the tasks ``[count]`` of an iteration.

        Args:
            count: number of tasks.
            seed: seed of the run.
            iteration: counted from 0; with the seed it determines the random stream, so that a resumed run draws the
                same tasks.
        """

    def follow(self, tasks: TensorDict, seed: int, iteration: int, episode: int) -> TensorDict:
        """Return the tasks ``[count]`` of a later episode of the iteration's trials; by default they are the same.

        Args:
            tasks: those of the episode before.
            seed: as in ``draw``.
            iteration: as in ``draw``.
            episode: number of the episode in its trial, at least 1.
        """
        return tasks

    def report(self, rollouts: Sequence[Rollout], iteration: int) -> None:  # noqa: B027
        """Receive the outcome of the tasks that were drawn; by default it is ignored.

        Args:
            rollouts: rollouts of this process's N tasks, one before each adaptation step, and one after the last.
            iteration: iteration in which they were drawn.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return everything that ``report`` changes, as tensors, numbers, strings and containers of them."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Restore what ``state_dict`` returned; by default nothing."""


TASK_SOURCES: Registry[type[TaskSource]] = Registry("task source", "metarl train LEARNER FAMILY --help")
SourceT = TypeVar("SourceT", bound=TaskSource)


def register_task_source(source: type[SourceT]) -> type[SourceT]:
    """Register a task source by its name; used as a class decorator."""
    TASK_SOURCES[source.name] = source
    return source


@register_task_source
class UniformTasks(TaskSource):
    """Draws tasks uniformly from the training part of the split."""

    name: ClassVar[str] = "uniform"

    def draw(self, count: int, seed: int, iteration: int) -> TensorDict:
        """Return independent tasks ``[count]``."""
        return self.split.train_tasks(count, seed, iteration)


@register_task_source
class TaskStream(TaskSource):
    """Meets the first ``train_tasks`` training tasks one after the other, and then again from the first one on.

    Every task of an iteration is the same one (Wołczyk et al. 2021, section 3).
    """

    name: ClassVar[str] = "stream"

    def __init__(self, split: TaskSplit, run: Any) -> None:
        super().__init__(split, run)
        if run.train_tasks is None:
            raise InputError(
                "--task-source stream meets a fixed number of tasks in turn: set that number with --train-tasks"
            )
        self.settings: StreamConfig = run.stream
        self.tasks = split.held_out_tasks("train", run.train_tasks)

    def draw(self, count: int, seed: int, iteration: int) -> TensorDict:
        """Return the task of an iteration ``count`` times."""
        met = iteration // self.settings.iterations_per_task + self.settings.first_task
        number = met % len(self.tasks)
        return self.tasks[number : number + 1].expand(count).clone()


@dataclass
class _Met:
    """The record of one task.

    Attributes:
        task: its parameters ``[]``.
        score: estimate of its learning potential.
        best: highest episode return so far.
        iteration: iteration in which it was last seen.
    """

    task: TensorDict
    score: float
    best: float
    iteration: int


@register_task_source
class PrioritisedTasks(TaskSource):
    """Prioritised level replay (PLR; Jiang, Grefenstette and Rocktäschel 2021, section 3).

    With probability ``replay_probability`` a task of an iteration is one seen before, otherwise a new one from the
    split. Replay uses P = (1 - rho) P_S + rho P_C: P_S is proportional to rank(score) ^ (-1 / temperature), P_C to the
    number of iterations since the task was last seen. Tasks of one iteration are replayed without replacement.

    The score must also work for learners without a value function. It is an estimate of regret from returns alone: the
    highest return of any episode of the task so far, minus the mean return of its latest episodes after adaptation. The
    maximum is the one of MaxMC (Jiang et al. 2021, Replay-guided adversarial environment design), which uses it in
    place of a bootstrapped target at each step. A task on which all episodes have the same return scores 0 and ranks
    last, whether it is mastered or no episode has ever succeeded.
    """

    name: ClassVar[str] = "plr"

    def __init__(self, split: TaskSplit, run: Any) -> None:
        super().__init__(split, run)
        self.settings: PlrConfig = run.plr
        self._met: dict[bytes, _Met] = {}

    @property
    def scores(self) -> Tensor:
        """Scores ``[K]`` of the tasks kept for replay."""
        return torch.tensor([each.score for each in self._met.values()], dtype=torch.float64)

    def probabilities(self, iteration: int) -> Tensor:
        """Return the replay distribution ``[K]`` at an iteration."""
        ranks = torch.empty(len(self._met), dtype=torch.float64)
        order = self.scores.argsort(descending=True, stable=True)
        ranks[order] = torch.arange(1, len(order) + 1, dtype=torch.float64)
        # Relative to the first rank, whose weight is 1, so that not all weights can underflow.
        by_score = torch.softmax(-ranks.log() / self.settings.score_temperature, 0)
        ages = torch.tensor([iteration - each.iteration for each in self._met.values()], dtype=torch.float64)
        by_age = ages / ages.sum() if ages.sum() > 0 else torch.full_like(ages, 1 / len(ages))
        rho = self.settings.staleness_weight
        return (1 - rho) * by_score + rho * by_age

    def draw(self, count: int, seed: int, iteration: int) -> TensorDict:
        """Return tasks ``[count]``: replayed ones first, then new ones."""
        stream = generator(seed, "prioritised tasks", iteration)
        wanted = int((torch.rand(count, generator=stream) < self.settings.replay_probability).sum())
        replayed = min(wanted, len(self._met))
        new = self.split.train_tasks(count - replayed, seed, iteration) if replayed < count else None
        if not replayed:
            assert new is not None
            return new
        known = [each.task for each in self._met.values()]
        # Tasks of probability 0 cannot be drawn without replacement; with the smallest weight they can fill the rest.
        weights = self.probabilities(iteration).clamp(min=torch.finfo(torch.float64).tiny)
        chosen = torch.multinomial(weights, replayed, generator=stream).tolist()
        old: TensorDict = TensorDict.stack([known[index] for index in chosen])
        joined: TensorDict = old if new is None else TensorDict.cat([old, new])
        return joined

    def report(self, rollouts: Sequence[Rollout], iteration: int) -> None:
        """Score the tasks, and keep those with the highest scores."""
        returns = torch.cat([rollout.episode_returns() for rollout in rollouts], 1)
        highest, latest = returns.amax(1).tolist(), rollouts[-1].episode_returns().mean(1).tolist()
        for part in self.processes.gather((rollouts[0].tasks.cpu().to_dict(), highest, latest)):
            self._take_note(iteration, *part)
        ranked = sorted(self._met.items(), key=lambda item: item[1].score, reverse=True)
        self._met = dict(ranked[: self.settings.replayed_tasks])

    def _take_note(self, iteration: int, tasks: dict[str, Tensor], highest: list[float], latest: list[float]) -> None:
        """Score tasks by the highest return of an episode, and the mean return of those after adaptation."""
        met = TensorDict(tasks, [len(latest)])
        for index, key in enumerate(task_keys(met)):
            before = self._met.get(key)
            best = highest[index] if before is None else max(highest[index], before.best)
            self._met[key] = _Met(met[index].clone(), best - latest[index], best, iteration)

    def state_dict(self) -> dict[str, Any]:
        """Return the records of the kept tasks."""
        if not self._met:
            return {}
        met = list(self._met.values())
        tasks: TensorDict = TensorDict.stack([each.task for each in met])
        return {
            "tasks": {str(name): value.clone() for name, value in tasks.items()},
            "scores": [each.score for each in met],
            "best": [each.best for each in met],
            "iterations": [each.iteration for each in met],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._met = {}
        if not state:
            return
        tasks = TensorDict(dict(state["tasks"]), [len(state["scores"])])
        known = zip(task_keys(tasks), tasks, state["scores"], state["best"], state["iterations"], strict=True)
        for key, task, score, best, iteration in known:
            self._met[key] = _Met(task, score, best, iteration)
