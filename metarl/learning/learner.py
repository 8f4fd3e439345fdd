"""The interface of every meta-learner and baseline, and the registry of learners."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar, final

import torch
from torch import Tensor

from metarl.devices.processes import ONE_PROCESS, Processes
from metarl.errors import InputError
from metarl.families.family import TaskFamily
from metarl.learning.replay import Replay
from metarl.numerics.distributions import Distribution
from metarl.registry import Registry
from metarl.rollouts.rollout import Rollout

StateT = TypeVar("StateT")
# How learners that remember trials can be trained for ``metarl continual``: on trials of one task, or of several.
CONSTANT, CHANGING = "constant", "changing"


@dataclass
class OpenState(Generic[StateT]):
    """The working state of an actor in running episodes: made by ``open``, updated in place by ``act`` and ``observe``.

    Attributes:
        state: the state it was opened from, which does not change.
    """

    state: StateT


class Actor(ABC):
    """Acts in E parallel episodes of each of N tasks.

    Attributes:
        capturable: whether acting and observing can be part of a CUDA graph recorded once per run: they use only the
            fields of the ``OpenState`` other than ``state``, and parameters that change in place.
    """

    capturable: ClassVar[bool] = False

    def open(self, state: Any, episodes: int, generator: torch.Generator, deterministic: bool = False) -> Any:
        """Start an episode in each of ``episodes`` rows of every task; return the ``OpenState`` to act with.

        Args:
            state: state for N tasks, which is not changed.
            episodes: number of episodes E per task.
            generator: generator of all randomness in the episodes.
            deterministic: whether to take the mode instead of sampling.
        """
        return OpenState(state)

    @abstractmethod
    def act(
        self, working: Any, observations: Tensor, generator: torch.Generator, deterministic: bool = False
    ) -> tuple[Tensor, Distribution]:
        """Choose actions ``[N, E, *action]`` at observations ``[N, E, *observation]``.

        Args:
            working: the open state returned by ``open``.
            observations: observations of the current step.
            generator: generator of the samples.
            deterministic: take the mode of the distribution instead of a sample.

        Returns:
            The actions, and their distribution.
        """

    def observe(  # noqa: B027 (most have no memory)
        self, working: Any, actions: Tensor, rewards: Tensor, ended: Tensor
    ) -> None:
        """Process the outcome of a step; by default nothing is remembered.

        On CUDA it must neither synchronise nor replace the tensors in ``working``, because a captured graph contains
        it.

        Args:
            working: the open state.
            actions: the last actions ``[N, E, *action]``, as returned by ``act``.
            rewards: ``[N, E]``.
            ended: bool ``[N, E]``, whether the row's episode ended with this step. Rows whose episode ended earlier are
                still stepped, but nothing after an episode's end may enter the adapted state.
        """


class Learner(Actor):
    """Something that is trained across tasks and adapts to new ones.

    What it knows about N tasks is its *state*: adapted parameters, a memory, a belief. Only the learner itself reads
    it.

    Attributes:
        name: name on the command line.
        config_class: frozen dataclass of its settings, each with a sentence under it.
        inner_steps: number of adaptation steps in a training iteration.
        evaluation_steps: default number of adaptation steps in an evaluation.
        pools_episodes: whether the parallel episodes of a task are pooled. If not, each of them belongs to a trial of
            its own, which continues in the next rollout.
        learns_from_recorded: whether ``update`` accepts episodes recorded with another policy, without its
            probabilities.
        needs_recorded: whether there is nothing to learn from its own episodes; the command line then requires --data.
        stride: rounds of a recorded learning history from one episode of a trial to the next; None to combine recorded
            episodes at random.
        continual: how it can meet several tasks in ``metarl continual``: a stream of them by fine-tuning and by methods
            that its setting ``continual`` names, or, trained on trials whose task is ``CONSTANT`` or ``CHANGING``,
            several in a trial. None for learners that are not measured there.
        baseline: whether it is a baseline, which is the job type of tracked runs.
        label_settings: names of settings that are always part of the learner's label in a comparison, such as a
            variant.
        metrics: description of each metric that ``update`` returns; the manual's table is generated from it.
        kl_metric: name of the metric that is the KL divergence which an update bounds, if there is one.
        numbers: version of the learner's arithmetic, raised when the same settings no longer give the same numbers;
            runs of an older version cannot be resumed.
        processes: the processes that train the learner together, each on its own tasks. Everything that ``update``
            computes from tasks is averaged over them, so that all have the same parameters and return the same metrics.
        shards: whether several processes can train it together.
        parameters_at: keys of ``state_dict`` under which its parameters are, one inside the other.
    """

    name: ClassVar[str]
    config_class: ClassVar[type]
    inner_steps: int
    evaluation_steps: int = 3
    pools_episodes: ClassVar[bool] = True
    learns_from_recorded: ClassVar[bool] = False
    needs_recorded: ClassVar[bool] = False
    stride: int | None = None
    continual: ClassVar[Sequence[str]] = ()
    baseline: ClassVar[bool] = False
    label_settings: ClassVar[Sequence[str]] = ()
    metrics: ClassVar[Mapping[str, str]] = {}
    kl_metric: ClassVar[str | None] = None
    numbers: ClassVar[int] = 1
    processes: Processes = ONE_PROCESS
    shards: ClassVar[bool] = True
    parameters_at: ClassVar[Sequence[str]] = ("network",)

    @classmethod
    def check_processes(cls, processes: Processes) -> None:
        """Make sure that this many processes can train the learner together, or evaluate it.

        Raises:
            InputError: when they cannot.
        """
        if processes.size > 1 and not cls.shards:
            raise InputError(
                f"{cls.name} runs in a single process, not in {processes.size}; use one device, or one for each seed: "
                "--seeds 1,2,3 --devices all"
            )

    @abstractmethod
    def __init__(self, family: TaskFamily, config: Any, seed: int, device: torch.device) -> None:
        """Initialise an untrained learner, with initial parameters drawn from ``seed``."""

    @classmethod
    def view(cls, family: TaskFamily, config: Any) -> TaskFamily:
        """Return the family as the learner observes it: unchanged, except for oracles, which observe the task.

        The tasks and their split are the family's.
        """
        return family

    @classmethod
    def from_scratch(cls, config: Any) -> bool:
        """Return whether it learns each task from scratch, unaffected by training on other tasks."""
        return False

    @abstractmethod
    def begin(self, num_tasks: int) -> Any:
        """Return the initial state for ``num_tasks`` unknown tasks."""

    @final
    def act(
        self, working: Any, observations: Tensor, generator: torch.Generator, deterministic: bool = False
    ) -> tuple[Tensor, Distribution]:
        """Choose actions ``[N, E, *action]`` at observations ``[N, E, *observation]``; see ``Actor.act``.

        Raises:
            InputError: if the state is not open.
        """
        if not isinstance(working, OpenState):
            raise InputError(
                f"{self.name} cannot act on a state that is not open: call open(state, episodes, generator) at the "
                "start of every episode, and act on the state it returns"
            )
        distribution = self.action_distribution(working, observations)
        return distribution.mode() if deterministic else distribution.sample(generator), distribution

    @abstractmethod
    def action_distribution(self, working: Any, observations: Tensor) -> Distribution:
        """Return the action distribution at observations ``[N, E, *observation]``; called once per step.

        Args:
            working: the open state.
            observations: observations of the current step.

        Returns:
            A distribution whose tensors are ``[N, E, ...]`` or broadcastable to that.
        """

    def remember(self, working: Any, actions: Tensor, rewards: Tensor) -> None:
        """Keep what the next step's action depends on; a part of ``observe``, which an exported policy has too.

        Args:
            working: the open state.
            actions: the last actions ``[N, E, *action]``.
            rewards: ``[N, E]``.
        """

    @abstractmethod
    def adapt(self, state: Any, rollout: Rollout) -> Any:
        """Return the state after learning from a rollout of the tasks, collected in ``state`` or recorded elsewhere."""

    def close(self, working: Any, rollout: Rollout) -> Any:
        """Return the state after learning from the episodes acted with ``working``.

        By default it adapts to the rollout. A learner that updated its memory while acting need not read them again;
        the state is the same, up to rounding.

        Args:
            working: the open state after the last step.
            rollout: the complete episodes.
        """
        return self.adapt(working.state, rollout)

    @abstractmethod
    def update(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Update the learner from one iteration's rollouts: one before each adaptation step, and one after the last.

        Returns:
            Metrics by name.

        Raises:
            RunError: if the update is not finite; the learner is then unchanged.
        """

    def replays(self) -> Mapping[str, Replay]:
        """Return the replay buffers by name; by default there are none.

        They are not part of ``state_dict``: training stores them in files next to the checkpoint.
        """
        return {}

    def notes(self) -> Mapping[str, float]:
        """Return further numbers of an evaluation, such as what a model has read so far; by default there are none."""
        return {}

    def parameters(self) -> dict[str, Tensor]:
        """Return the trained tensors by name, on the CPU."""
        found: Any = self.state_dict()
        for key in self.parameters_at:
            found = found.get(key, {})
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return all trained state except replay buffers: tensors, numbers, strings and containers of them."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""


LEARNERS: Registry[type[Learner]] = Registry("learner", "metarl learners", "metarl.agents")
LearnerT = TypeVar("LearnerT", bound=Learner)


def register_learner(learner: type[LearnerT]) -> type[LearnerT]:
    """Register a learner by its name; used as a class decorator."""
    LEARNERS[learner.name] = learner
    return learner
