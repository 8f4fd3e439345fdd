"""What some learners can show of their beliefs, beyond acting; ``metarl compare`` draws it."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from metarl.rollouts.trials import Trials


@runtime_checkable
class RewardModel(Protocol):
    """A learner that predicts rewards from its belief about the task; ``metarl compare`` plots them."""

    def expected_rewards(
        self, trials: Trials, observations: Tensor, actions: Tensor, next_observations: Tensor, seed: int
    ) -> Tensor:
        """Return the expected rewards of M transitions under the belief at each step of B trials, ``[B, L, M]``.

        Args:
            trials: experience in B tasks, up to L steps.
            observations: ``[M, *observation]``, before the steps.
            actions: ``[M, *action]``, in the policy's units.
            next_observations: ``[M, *observation]``, after the steps.
            seed: seed of the samples of the belief.
        """


@runtime_checkable
class TaskEmbedding(Protocol):
    """A learner that acts on a vector which describes the task; ``metarl compare`` plots it over adaptation."""

    def task_embeddings(self, trials: Trials) -> Tensor:
        """Return the vectors ``[B, L, Z]`` that describe the tasks of B trials before each of their L steps."""
