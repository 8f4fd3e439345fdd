"""The interface of every meta-learner and baseline, and the registry of learners."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar, final, runtime_checkable

import torch
from torch import Tensor

from metarl.distributions import Distribution
from metarl.errors import InputError
from metarl.family import TaskFamily
from metarl.processes import ONE_PROCESS, Processes
from metarl.registry import Registry
from metarl.replay import Replay
from metarl.rollout import Rollout
from metarl.trials import Trials

StateT = TypeVar("StateT")


@dataclass
class OpenState(Generic[StateT]):
    """What an actor acts by while episodes run: made by ``open``, changed in place by ``act`` and ``observe``.

    Attributes:
        state: that it was opened from, which stays as it was.
    """

    state: StateT


class Actor(ABC):
    """What acts in episodes of N tasks, E of each side by side."""

    def open(self, state: Any, episodes: int, generator: torch.Generator, deterministic: bool = False) -> Any:
        """Start an episode in each of ``episodes`` rows of every task; return the ``OpenState`` to act by.

        Args:
            state: what is known of N tasks; it is not changed.
            episodes: E.
            generator: of everything random in the episodes.
            deterministic: whether to choose the most probable instead of drawing.
        """
        return OpenState(state)

    @abstractmethod
    def act(
        self, working: Any, observations: Tensor, generator: torch.Generator, deterministic: bool = False
    ) -> tuple[Tensor, Distribution]:
        """Choose actions ``[N, E, *action]`` at observations ``[N, E, *observation]``.

        Args:
            working: what ``open`` returned at the start of the episodes.
            observations: of the present step.
            generator: of the draws.
            deterministic: take the mode of the distribution instead of a sample.

        Returns:
            The actions, and the distribution that they come from.
        """

    def observe(  # noqa: B027 (most remember nothing)
        self, working: Any, actions: Tensor, rewards: Tensor, ended: Tensor
    ) -> None:
        """Take in the outcome of a step; by default nothing is remembered.

        On CUDA it must neither wait for the device nor move what ``working`` holds: a captured graph contains it.

        Args:
            working: what ``open`` returned.
            actions: the last ones ``[N, E, *action]``, as ``act`` returned them.
            rewards: ``[N, E]``.
            ended: bool ``[N, E]``, whether the row's episode ended with this step. Rows whose episode ended earlier
                go on being stepped, and nothing that comes after an episode's end may reach the adapted state.
        """


class Learner(Actor):
    """Something that is trained across tasks and adapts to new ones.

    What it knows of N tasks is its *state* for them: adapted parameters, a memory, a belief. Only the learner looks
    inside.

    Attributes:
        name: on the command line.
        config_class: frozen dataclass of its settings, each with a sentence under it.
        inner_steps: adaptations between the first and the last rollout of a training iteration.
        evaluation_steps: adaptations in an evaluation, by default.
        pools_episodes: whether a task's episodes side by side are one experience. If not, each of them belongs to a
            trial of its own, which goes on in the next rollout.
        learns_from_recorded: whether ``update`` takes episodes that another policy recorded, without its probabilities.
        baseline: whether it is there to be compared with; a tracked run says so.
        label_settings: names of settings that a comparison's label of the learner always shows, such as a variant.
        metrics: what ``update`` returns, with a sentence for each; the manual's table is made of it.
        kl_metric: which of them is the KL divergence of the adapted policies that an update bounds, if one is.
        numbers: version of the learner's numbers; it is raised when the same settings train to other numbers than
            before, and a run of an older version is then not resumed.
        processes: those that train the learner together, each on its own tasks. Whatever ``update`` computes from
            tasks goes through their means, so that all end up with the same parameters and return the same metrics.
    """

    name: ClassVar[str]
    config_class: ClassVar[type]
    inner_steps: int
    evaluation_steps: int = 3
    pools_episodes: ClassVar[bool] = True
    learns_from_recorded: ClassVar[bool] = False
    baseline: ClassVar[bool] = False
    label_settings: ClassVar[Sequence[str]] = ()
    metrics: ClassVar[Mapping[str, str]] = {}
    kl_metric: ClassVar[str | None] = None
    numbers: ClassVar[int] = 1
    processes: Processes = ONE_PROCESS

    @abstractmethod
    def __init__(self, family: TaskFamily, config: Any, seed: int, device: torch.device) -> None:
        """Start untrained; ``seed`` decides the initial parameters."""

    @classmethod
    def view(cls, family: TaskFamily, config: Any) -> TaskFamily:
        """Return the family as the learner is to meet it: as it is, but for an oracle, which sees the task.

        Its tasks, and their split, are the family's.
        """
        return family

    @classmethod
    def from_scratch(cls, config: Any) -> bool:
        """Return whether it learns each task anew, so that training on other tasks changes nothing."""
        return False

    @abstractmethod
    def begin(self, num_tasks: int) -> Any:
        """Return the state for ``num_tasks`` tasks of which nothing is known."""

    @final
    def act(
        self, working: Any, observations: Tensor, generator: torch.Generator, deterministic: bool = False
    ) -> tuple[Tensor, Distribution]:
        """Choose actions ``[N, E, *action]`` at observations ``[N, E, *observation]``; see ``Actor.act``.

        Raises:
            InputError: when the state is not open.
        """
        if not isinstance(working, OpenState):
            raise InputError(
                f"{self.name} cannot act on a state that is not open: call open(state, episodes, generator) at the "
                "start of every episode, and act on what it returns"
            )
        distribution = self.action_distribution(working, observations)
        return distribution.mode() if deterministic else distribution.sample(generator), distribution

    @abstractmethod
    def action_distribution(self, working: Any, observations: Tensor) -> Distribution:
        """Return the distribution of actions at observations ``[N, E, *observation]``, called once in every step.

        Args:
            working: what ``open`` returned.
            observations: of the present step.

        Returns:
            A distribution whose tensors are ``[N, E, ...]``, or broadcast to that.
        """

    @abstractmethod
    def adapt(self, state: Any, rollout: Rollout) -> Any:
        """Return the state after learning from a rollout of the tasks, collected in ``state`` or recorded elsewhere."""

    def close(self, working: Any, rollout: Rollout) -> Any:
        """Return the state after learning from the episodes that were acted in ``working``.

        By default it adapts to the rollout. A learner that has remembered the episodes while it acted need not read
        them again; the state is the same, up to floating-point rounding.

        Args:
            working: what ``open`` returned, after the last step.
            rollout: the whole episodes.
        """
        return self.adapt(working.state, rollout)

    @abstractmethod
    def update(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Improve from one iteration's rollouts: one before each adaptation, and the last one after all of them.

        Returns:
            Metrics by name.

        Raises:
            RunError: when the update is not finite; the learner is then unchanged.
        """

    def replays(self) -> Mapping[str, Replay]:
        """Return the buffers that ``update`` draws from again and again, by name; by default there are none.

        They are what ``state_dict`` leaves out: training keeps them in files beside the checkpoint.
        """
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return everything that training changes but replay buffers: tensors, numbers, strings, containers of them."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` returned."""


@runtime_checkable
class RewardModel(Protocol):
    """A learner that predicts rewards from its belief about the task; ``metarl compare`` draws what it expects."""

    def expected_rewards(
        self, trials: Trials, observations: Tensor, actions: Tensor, next_observations: Tensor, seed: int
    ) -> Tensor:
        """Return the reward that is expected of each of M steps before each step of B trials, ``[B, L, M]``.

        Args:
            trials: what has been experienced of B tasks, up to L steps.
            observations: ``[M, *observation]``, before the steps.
            actions: ``[M, *action]``, as a policy draws them.
            next_observations: ``[M, *observation]``, after the steps.
            seed: of samples of the belief.
        """


LEARNERS: Registry[type[Learner]] = Registry("learner", "metarl learners")
LearnerT = TypeVar("LearnerT", bound=Learner)


def register_learner(learner: type[LearnerT]) -> type[LearnerT]:
    """Make a learner known by its name; used as a class decorator."""
    LEARNERS[learner.name] = learner
    return learner
