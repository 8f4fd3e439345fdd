"""The protocol that every meta-learner and baseline speaks, and the registry of learners."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from metarl.distributions import Distribution
from metarl.family import TaskFamily
from metarl.registry import Registry
from metarl.replay import Replay
from metarl.rollout import Rollout


class Learner(ABC):
    """Something that is trained across tasks and adapts to new ones.

    What it knows of N tasks is its *state* for them: adapted parameters, a memory, a belief. Only the learner looks
    inside.

    Attributes:
        name: on the command line.
        config_class: frozen dataclass of its settings, each with a sentence under it.
        inner_steps: adaptations between the first and the last rollout of a training iteration.
        evaluation_steps: adaptations that an evaluation takes by default.
        pools_episodes: whether a task's episodes side by side are one experience. Else each goes on in a trial of its
            own, by ``sampler.RememberingActor``.
        learns_from_recorded: whether ``update`` takes episodes that another policy recorded, without its probabilities.
        baseline: whether it is there to be compared with; a tracked run says so.
        metrics: what ``update`` returns, with a sentence for each; the manual's table is made of it.
    """

    name: ClassVar[str]
    config_class: ClassVar[type]
    inner_steps: int
    evaluation_steps: int = 3
    pools_episodes: ClassVar[bool] = True
    learns_from_recorded: ClassVar[bool] = False
    baseline: ClassVar[bool] = False
    metrics: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def __init__(self, family: TaskFamily, config: Any, seed: int, device: torch.device) -> None:
        """Start untrained; ``seed`` decides the initial parameters."""

    @classmethod
    def view(cls, family: TaskFamily, config: Any) -> TaskFamily:
        """Return the family as the learner is to meet it: as it is, but for an oracle, which sees the task.

        Its tasks, and their split, are the family's.
        """
        return family

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


LEARNERS: Registry[type[Learner]] = Registry("learner", "metarl learners")
LearnerT = TypeVar("LearnerT", bound=Learner)


def register_learner(learner: type[LearnerT]) -> type[LearnerT]:
    """Make a learner known by its name; used as a class decorator."""
    LEARNERS[learner.name] = learner
    return learner
