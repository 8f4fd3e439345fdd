"""The protocol that every meta-learner and baseline speaks, and the registry of learners."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from metarl.distributions import Distribution
from metarl.family import TaskFamily
from metarl.processes import ONE_PROCESS, Processes
from metarl.registry import Registry
from metarl.rollout import Rollout
from metarl.trials import Trials


class Learner(ABC):
    """Something that is trained across tasks and adapts to new ones.

    What it knows of N tasks is its *state* for them: adapted parameters, a memory, a belief. Only the learner looks
    inside.

    Attributes:
        name: on the command line.
        config_class: frozen dataclass of its settings, each with a sentence under it.
        inner_steps: adaptations between the first and the last rollout of a training iteration.
        evaluation_steps: adaptations that an evaluation takes if it is not told.
        pools_episodes: whether a task's episodes side by side are one experience. Else each goes on in a trial of its
            own, by ``sampler.RememberingActor``.
        baseline: whether it is there to be compared with; a tracked run says so.
        label_settings: names of settings that a comparison's label of the learner always shows, such as a variant.
        metrics: what ``update`` returns, with a sentence for each; the manual's table is made of it.
        processes: those that train the learner together, each on its own tasks. Whatever ``update`` computes from
            tasks goes through their means, so that all end up with the same parameters and return the same metrics.
    """

    name: ClassVar[str]
    config_class: ClassVar[type]
    inner_steps: int
    evaluation_steps: int = 3
    pools_episodes: ClassVar[bool] = True
    baseline: ClassVar[bool] = False
    label_settings: ClassVar[Sequence[str]] = ()
    metrics: ClassVar[Mapping[str, str]] = {}
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

    @abstractmethod
    def act(
        self, state: Any, observations: Tensor, generator: torch.Generator, deterministic: bool = False
    ) -> tuple[Tensor, Distribution]:
        """Choose actions ``[N, E, *action]`` at observations ``[N, E, *observation]``; see ``sampler.Actor``."""

    @abstractmethod
    def adapt(self, state: Any, rollout: Rollout) -> Any:
        """Return the state after learning from a rollout of the tasks, collected in ``state`` or recorded elsewhere."""

    @abstractmethod
    def update(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Improve from one iteration's rollouts: one before each adaptation, and the last one after all of them.

        Returns:
            Metrics by name.

        Raises:
            RunError: when the update is not finite; the learner is then unchanged.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return everything that training changes, as tensors, numbers, strings and containers of them."""

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
