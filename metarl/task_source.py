"""Which tasks training meets: drawn uniformly from the split, or replayed by what there is left to learn on them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.registry import Registry
from metarl.rollout import Rollout
from metarl.seeding import generator
from metarl.splits import TaskSplit, task_keys
from metarl.validation import require_counts, require_positive, require_unit


@dataclass(frozen=True)
class PlrConfig:
    """Settings of prioritised level replay, the task source plr."""

    replay_probability: float = 0.5
    """Of a task of an iteration being replayed instead of drawn anew, with --task-source plr."""
    replayed_tasks: int = 1000
    """Tasks that are kept for replay, those with the highest scores."""
    score_temperature: float = 0.3
    """Temperature of the ranks of scores: near 0 replays the highest score alone, large values all tasks alike."""
    staleness_weight: float = 0.1
    """Share of the replay distribution that goes by how long ago a task was met, instead of by its score."""

    def __post_init__(self) -> None:
        require_unit(self, "replay_probability", "staleness_weight")
        require_counts(self, "replayed_tasks")
        require_positive(self, "score_temperature")


class TaskSource(ABC):
    """Draws the training tasks of each iteration, and may learn from what came of them.

    A source of one's own is registered with ``register_task_source`` and named ``module:name`` on the command line.

    Attributes:
        name: on the command line.

    Args:
        split: of the family's tasks; only training tasks may be drawn.
        run: the run's ``RunConfig``, from which a source reads its settings.
    """

    name: ClassVar[str]

    def __init__(self, split: TaskSplit, run: Any) -> None:
        self.split = split

    @abstractmethod
    def draw(self, count: int, seed: int, iteration: int) -> TensorDict:
        """Return the tasks ``[count]`` of an iteration.

        Args:
            count: number of tasks.
            seed: the run's.
            iteration: counted from 0; with the seed it names the random stream, so that a resumed run draws the same.
        """

    def report(self, rollouts: Sequence[Rollout], iteration: int) -> None:  # noqa: B027
        """Take note of what came of the tasks that were drawn; by default of nothing.

        Args:
            rollouts: of these N tasks, one before each adaptation and the last one after all of them.
            iteration: in which they were drawn.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return everything that ``report`` changes, as tensors, numbers, strings and containers of them."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Take over what ``state_dict`` returned; by default nothing."""


TASK_SOURCES: Registry[type[TaskSource]] = Registry("task source", "metarl train LEARNER FAMILY --help")
SourceT = TypeVar("SourceT", bound=TaskSource)


def register_task_source(source: type[SourceT]) -> type[SourceT]:
    """Make a task source known by its name; used as a class decorator."""
    TASK_SOURCES[source.name] = source
    return source


@register_task_source
class UniformTasks(TaskSource):
    """Draws tasks from the training part of the split, whatever came of those before."""

    name: ClassVar[str] = "uniform"

    def draw(self, count: int, seed: int, iteration: int) -> TensorDict:
        """Return tasks ``[count]``, independent of each other and of all others."""
        return self.split.train_tasks(count, seed, iteration)


@dataclass
class _Met:
    """What is known of one task.

    Attributes:
        task: its parameters ``[]``.
        score: what there is estimated to be left to learn on it.
        best: the highest return of an episode so far.
        iteration: in which it was met last.
    """

    task: TensorDict
    score: float
    best: float
    iteration: int


@register_task_source
class PrioritisedTasks(TaskSource):
    """Prioritised level replay (PLR; Jiang, Grefenstette and Rocktäschel 2021, section 3).

    With probability ``replay_probability`` a task of an iteration is one met before, else a new one from the split.
    Replay draws by P = (1 - rho) P_S + rho P_C: P_S is proportional to rank(score) ^ (-1 / temperature), P_C to the
    number of iterations since the task was met last. Tasks of one iteration are replayed without replacement.

    The score must serve learners without a value function as well. It is an estimate of regret from returns alone:
    the highest return of any episode of the task so far, minus the mean return of its latest episodes after
    adaptation. The maximum in it is that of MaxMC (Jiang et al. 2021, Replay-guided adversarial environment design),
    which replaces a bootstrapped target with it for each step. A task on which all episodes earn the same scores 0 and
    ranks last, be it mastered or be it one on which no episode has ever succeeded.
    """

    name: ClassVar[str] = "plr"

    def __init__(self, split: TaskSplit, run: Any) -> None:
        super().__init__(split, run)
        self.settings: PlrConfig = run.plr
        self._met: dict[bytes, _Met] = {}

    @property
    def scores(self) -> Tensor:
        """Scores ``[K]`` of the tasks that are kept for replay."""
        return torch.tensor([each.score for each in self._met.values()], dtype=torch.float64)

    def probabilities(self, iteration: int) -> Tensor:
        """Return the replay distribution ``[K]`` at an iteration over the tasks that are kept."""
        ranks = torch.empty(len(self._met), dtype=torch.float64)
        order = self.scores.argsort(descending=True, stable=True)
        ranks[order] = torch.arange(1, len(order) + 1, dtype=torch.float64)
        # Relative to the first rank, whose weight is 1: no temperature underflows all weights.
        by_score = torch.softmax(-ranks.log() / self.settings.score_temperature, 0)
        ages = torch.tensor([iteration - each.iteration for each in self._met.values()], dtype=torch.float64)
        by_age = ages / ages.sum() if ages.sum() > 0 else torch.full_like(ages, 1 / len(ages))
        rho = self.settings.staleness_weight
        return (1 - rho) * by_score + rho * by_age

    def draw(self, count: int, seed: int, iteration: int) -> TensorDict:
        """Return tasks ``[count]``: those that are replayed first, then new ones."""
        stream = generator(seed, "prioritised tasks", iteration)
        wanted = int((torch.rand(count, generator=stream) < self.settings.replay_probability).sum())
        replayed = min(wanted, len(self._met))
        new = self.split.train_tasks(count - replayed, seed, iteration) if replayed < count else None
        if not replayed:
            assert new is not None
            return new
        known = [each.task for each in self._met.values()]
        # Tasks of probability 0 cannot be drawn without replacement; the smallest weight lets them fill the rest.
        weights = self.probabilities(iteration).clamp(min=torch.finfo(torch.float64).tiny)
        chosen = torch.multinomial(weights, replayed, generator=stream).tolist()
        old: TensorDict = TensorDict.stack([known[index] for index in chosen])
        joined: TensorDict = old if new is None else TensorDict.cat([old, new])
        return joined

    def report(self, rollouts: Sequence[Rollout], iteration: int) -> None:
        """Score the tasks, and keep those with the highest scores."""
        tasks = rollouts[0].tasks.cpu()
        returns = torch.cat([rollout.episode_returns() for rollout in rollouts], 1)
        highest = returns.amax(1).tolist()
        latest = rollouts[-1].episode_returns().mean(1).tolist()
        for index, key in enumerate(task_keys(tasks)):
            before = self._met.get(key)
            best = highest[index] if before is None else max(highest[index], before.best)
            self._met[key] = _Met(tasks[index].clone(), best - latest[index], best, iteration)
        ranked = sorted(self._met.items(), key=lambda item: item[1].score, reverse=True)
        self._met = dict(ranked[: self.settings.replayed_tasks])

    def state_dict(self) -> dict[str, Any]:
        """Return the tasks that are kept, and what is known of them."""
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
        """Take over what ``state_dict`` returned."""
        self._met = {}
        if not state:
            return
        tasks = TensorDict(dict(state["tasks"]), [len(state["scores"])])
        known = zip(task_keys(tasks), tasks, state["scores"], state["best"], state["iterations"], strict=True)
        for key, task, score, best, iteration in known:
            self._met[key] = _Met(task, score, best, iteration)
